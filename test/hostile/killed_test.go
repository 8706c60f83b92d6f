package hostile

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/failpoint"
	"ambit.dev/ambit/test/instance"
)

// TestAProcessKilledAtAnApprovalLeavesOneQuestion: workers are killed before and after the transaction that asks, and before and after the one that
// admits what was approved. Whoever takes a session up asks once, and does once what was approved.
func TestAProcessKilledAtAnApprovalLeavesOneQuestion(t *testing.T) {
	c := newCourt(t)
	binary := instance.BuildWithFailpoints(t)
	for _, place := range []string{failpoint.BeforeAsk, failpoint.AfterAsk} {
		t.Run(place, func(t *testing.T) {
			const sessions = 12
			killed := 0
			replicas := func() (all []*instance.Replica) {
				for range 2 {
					all = append(all, c.instance.Replica("worker", binary, "FAILPOINT="+place+":1"))
				}
				return all
			}
			ended := func(all []*instance.Replica) {
				for _, r := range all {
					select {
					case <-r.Done():
						killed++
					default:
						_ = r.Stop() // it came to no approval
					}
				}
			}
			workers := replicas()
			var trials []*trial
			for n := range sessions {
				x := &trial{court: c, t: t, in: c.trusted, tag: fmt.Sprintf("k%s%d", strings.ReplaceAll(place, ".", ""), n)}
				x.rule(x.agent(), everything)
				x.begin(x.agents[0], x.tag, times(1)(x)...)
				trials = append(trials, x)
			}
			for _, x := range trials {
				require.Contains(t, x.rest(), "requires_action")
				require.Len(t, x.pending(), 1, "one question, whoever asked it")
				require.Zero(t, x.reached("good"))
			}
			ended(workers)
			workers = replicas()
			for _, x := range trials {
				for _, q := range x.pending() {
					require.Equal(t, 200, x.decide(x.in.approver, q, "approve"))
				}
			}
			for _, x := range trials {
				require.Eventually(t, func() bool { return strings.Contains(x.rest(), "end_turn") }, time.Minute, 50*time.Millisecond, "it rests with %s", x.stop)
				require.Equal(t, 1, x.reached("good"), "what was approved is done once")
				require.Equal(t, 1, x.used())
			}
			ended(workers)
			require.Positive(t, killed, "no process was killed: nothing is proved")
			t.Logf("%s: %d processes killed, %d sessions asked once and did once what was approved", place, killed, sessions)
		})
	}
}
