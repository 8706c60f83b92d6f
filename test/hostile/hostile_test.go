package hostile

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/provider"
)

// attack is one row of the table.
type attack struct {
	kind, name string
	may        may
	// says is what the hostile model answers, request for request.
	says func(x *scene) []provider.Turn
	// during is what happens meanwhile; nil: nothing.
	during func(x *scene)
	// course takes the place of a single session; it leaves one of its sessions in the scene.
	course func(x *scene)
	// forbidden says what was seen of the effect that must not happen; "" is nothing. It is asked again when all is over.
	forbidden func(x *scene) string
	why       why
	// twin is the nearest thing that is allowed, of an agent that may do the same, or what twinMay says.
	twin       func(x *scene) []provider.Turn
	twinMay    *may
	twinDuring func(x *scene)
	twinCourse func(x *scene)
	// done says what is missing of it; "" is nothing.
	done func(x *scene) string
	// machine says that it takes a sandbox.
	machine bool
}

// atOnce is how many rows are played at the same time.
const atOnce = 6

// TestAHostileModelHasNoForbiddenEffect plays the whole table.
func TestAHostileModelHasNoForbiddenEffect(t *testing.T) {
	s := newStage(t)
	table := slices.Concat(s.otherNames(), s.otherAddresses(), s.othersFiles(), s.money(), s.afterTheEnd(), s.forged(), s.untrueUsage())
	var mu sync.Mutex
	kinds := map[string]bool{}
	played, effects, reasons, twins := 0, 0, 0, 0
	var scenes []func() string
	var places sync.WaitGroup
	free := make(chan struct{}, atOnce)
	for n, row := range table {
		kinds[row.kind] = true
		places.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			t.Run(fmt.Sprintf("%s: %s", row.kind, row.name), func(t *testing.T) {
				if row.machine {
					s.machines <- struct{}{}
					defer func() { <-s.machines }()
				}
				mu.Lock()
				played++
				mu.Unlock()
				x := row.attacked(t, s, n)
				seen := row.forbidden(x)
				given, told := x.given(row.why), x.told(row.why)
				if seen != "" {
					t.Errorf("a forbidden effect: %s", seen)
				}
				if given < row.why.least || !told {
					t.Errorf("the reason %s is journalled %d of %d times (the model was told: %v)\n%s", row.why.says, given, row.why.least, told, x.tell())
				}
				missing := row.honest(t, s, n)
				if missing != "" {
					t.Errorf("the honest twin was not done: %s", missing)
				}
				mu.Lock()
				defer mu.Unlock()
				if given >= row.why.least && told {
					reasons++
				}
				if missing == "" {
					twins++
				}
				scenes = append(scenes, func() string {
					if seen == "" {
						seen = row.forbidden(x)
					}
					if seen != "" {
						return row.name + ": " + seen
					}
					return ""
				})
			})
		})
	}
	places.Wait()
	for _, again := range scenes {
		if seen := again(); seen != "" {
			effects++
			t.Log(seen)
		}
	}
	s.nothingElse(t)
	t.Logf("%d attacks of %d kinds: forbidden effects %d, journalled with a reason %d, twins done %d of %d", played, len(kinds), effects, reasons, twins, played)
	require.GreaterOrEqual(t, len(table), 30)
	require.GreaterOrEqual(t, len(kinds), 6)
	require.Zero(t, effects)
	require.Equal(t, played, reasons)
	require.GreaterOrEqual(t, twins*100, played*95)
}

// attacked plays the attack.
func (row attack) attacked(t *testing.T, s *stage, n int) *scene {
	t.Helper()
	x := s.newScene(t, fmt.Sprintf("a%02d", n), row.may)
	x.play(row.says, row.during, row.course)
	return x
}

// honest plays the twin, and says what is missing of it.
func (row attack) honest(t *testing.T, s *stage, n int) string {
	t.Helper()
	m := row.may
	if row.twinMay != nil {
		m = *row.twinMay
	}
	m.rules = slices.Clone(m.rules)
	x := s.newScene(t, fmt.Sprintf("t%02d", n), m)
	x.play(row.twin, row.twinDuring, row.twinCourse)
	missing := row.done(x)
	if missing == "" && !strings.Contains(x.stop, `"end_turn"`) {
		missing = "it ended with " + x.stop
	}
	if missing != "" {
		missing += "\n" + x.tell()
	}
	return missing
}

func (x *scene) play(says func(x *scene) []provider.Turn, during, course func(x *scene)) {
	x.t.Helper()
	if course != nil {
		course(x)
		return
	}
	x.provider.Script(x.tag, says(x)...)
	x.session = x.begin(x.tag)
	if during != nil {
		during(x)
	}
	x.read()
	x.sound(x.session, x.events)
}

// tell is the journal in short, for whoever looks into a failure.
func (x *scene) tell() string {
	var b strings.Builder
	for _, e := range x.events {
		fmt.Fprintf(&b, "%d %s %s %s %s %s %.300s %.300s %s\n", e.Seq, e.Type, e.Kind, e.Name, e.Decision, e.Outcome, fmt.Sprint(e.Reasons), e.text(), e.Error)
	}
	return b.String() + x.stop
}

// nothingElse looks at the logs of those outside as a whole: whatever reached them is a step that was admitted, and none came twice.
func (s *stage) nothingElse(t *testing.T) {
	t.Helper()
	seen := map[string]bool{}
	for _, key := range s.provider.Keys() {
		require.False(t, seen[key], "the effect %s reached the provider twice", key)
		seen[key] = true
		require.EqualValues(t, 1, s.number(t, `SELECT count(*) FROM steps WHERE effect_key = $1 AND kind = 'model_call'`, key), "a call reached the provider that no step stands for")
	}
	for _, o := range []*outside{s.open, s.shut} {
		for _, h := range o.seen() {
			require.EqualValues(t, 1, s.number(t, `SELECT count(*) FROM steps WHERE effect_key = $1 AND kind = 'tool_call'`, h.key), "%s %s reached a server, and no step stands for it", h.method, h.path)
		}
	}
	require.Zero(t, s.number(t, `SELECT count(*) FROM holds WHERE state IN ('held', 'unsettled') AND `+notOfALiveSandbox), "money is held after all ended")
}
