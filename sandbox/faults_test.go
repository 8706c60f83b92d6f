package sandbox_test

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/nomad"
	"ambit.dev/ambit/nomad/nomadtest"
	"ambit.dev/ambit/sandbox"
)

func TestTheControlPlaneAndTheNodeServiceMayDie(t *testing.T) {
	r := newRig(t)
	tn := r.tenant()
	b, err := tn.acquire(1)
	require.NoError(t, err)
	tn.must(b, "echo here > file")
	r.awaitWarm(1)
	warmBefore := r.warmOnes()

	// The node service is killed: Nomad starts it again, what runs goes on, and
	// new machines can be started.
	services := processes("ambit-node\x00service", r.runRoot)
	require.Len(t, services, 1)
	kill9(t, services[0])
	require.Equal(t, "here", tn.must(b, "cat file"))
	require.NoError(t, r.service.Release(t.Context(), tn.org, tn.session, sandbox.ReasonReleased))
	b, err = tn.acquire(2)
	require.NoError(t, err)
	require.Equal(t, "here", tn.must(b, "cat file"))
	r.awaitWarm(1)
	require.NotEqual(t, warmBefore, r.warmOnes(), "one was started from the new service's template")
	nodes, err := r.service.Nodes(t.Context())
	require.NoError(t, err)
	require.Len(t, nodes, 1)
	require.Equal(t, "ready", nodes[0].TemplateState)
	require.NotEmpty(t, nodes[0].Accelerator)
	require.NotEmpty(t, nodes[0].Detail)

	// The control plane goes away and comes back: machines are taken over.
	r.setDown(true)
	require.NoError(t, r.service.Stop(t.Context()))
	require.NoError(t, r.service.Stop(t.Context()))
	r.setDown(false)
	r.start()
	again, err := tn.acquire(3)
	require.NoError(t, err)
	require.Equal(t, b.ID, again.ID)
	require.Equal(t, "here", tn.must(again, "cat file"))

	// A job that nothing refers to is stopped.
	job, err := r.nomad.Dispatch(t.Context(), nomad.Dispatch{
		Sandbox: "sbx_00000000000000000000000000", Environment: "default", Payload: []byte(`{"control":"` + r.control.URL + `","secret":"0123456789abcdef"}`),
	})
	require.NoError(t, err)
	r.eventually(45*time.Second, "the stray is stopped", func() bool {
		allocs, err := r.nomad.JobAllocations(t.Context(), job)
		return err == nil && len(allocs) == 1 && allocs[0].State.Final()
	})
}

func TestReportsProveThemselves(t *testing.T) {
	r := newRig(t)
	r.awaitWarm(1)
	waiting := r.warmOnes()[0]
	post := func(path, secret, body string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.control.URL+path, bytes.NewBufferString(body))
		require.NoError(t, err)
		if secret != "" {
			req.Header.Set("Authorization", "Bearer "+secret)
		}
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	base := "/internal/sandboxes/" + waiting
	guess := "0123456789abcdef0123456789abcdef"
	require.Equal(t, http.StatusUnauthorized, post(base+"/ended", "", `{"reason":"x"}`))
	require.Equal(t, http.StatusNotFound, post(base+"/ended", guess, `{"reason":"x"}`))
	require.Equal(t, http.StatusNotFound, post(base+"/heartbeat", guess, `{}`))
	require.Equal(t, http.StatusNotFound, post(base+"/stopping", guess, `{}`))
	ready := `{"token":"` + guess + `","job_id":"ambit-sandbox/dispatch-` + waiting + `-1-2","alloc_id":"a","node_id":"n","address":"127.0.0.1:1"}`
	require.Equal(t, http.StatusNotFound, post(base+"/ready", guess, ready))
	require.Equal(t, http.StatusNotFound, post("/internal/sandboxes/sbx_none/ready", guess, ready))
	require.Equal(t, http.StatusBadRequest, post(base+"/ready", guess, `{`))
	require.Equal(t, http.StatusUnauthorized, post("/internal/nodes/n", guess, `{"template_state":"ready"}`))
	require.Equal(t, []string{waiting}, r.warmOnes())
}

func TestSandboxesOutliveTheNomadAgent(t *testing.T) {
	agent := nomadtest.StartDurable(t)
	r := newRig(t, onAgent(agent))
	tn := r.tenant()
	b, err := tn.acquire(1)
	require.NoError(t, err)
	tn.must(b, "echo here > file")

	agent.Kill()
	require.Equal(t, "here", tn.must(b, "cat file"), "the bridge needs no Nomad")
	agent.Run()
	agent.AwaitReady(r.nomad)
	require.Equal(t, "here", tn.must(b, "cat file"))
	again, err := tn.acquire(2)
	require.NoError(t, err)
	require.Equal(t, b.ID, again.ID)
	require.Equal(t, "running", tn.row(b.ID).State)
	require.NoError(t, r.service.Release(t.Context(), tn.org, tn.session, sandbox.ReasonReleased))
	r.eventually(20*time.Second, "its task has ended", func() bool { return len(machines(b.ID)) == 0 })
}
