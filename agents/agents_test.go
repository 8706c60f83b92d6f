package agents_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
)

var catalogue = agents.Catalogue{
	KnowsModel: func(m string) bool { return m == "test/model" || m == "test/other" },
	KnowsTool:  func(tool string) bool { return tool == "bash" || tool == "python" },
}

// shelf is a project's agents on a real database.
type shelf struct {
	*agents.Service
	t       *testing.T
	db      *postgres.DB
	org     id.Org
	project id.Project
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	db := dbtest.New(t)
	return &shelf{Service: agents.New(catalogue, clock.System()), t: t, db: db, org: dbtest.NewOrg(t, db), project: id.New[id.Project]()}
}

func (s *shelf) tx(fn func(ctx context.Context, tx pgx.Tx) error) error {
	ctx := principal.With(s.t.Context(), principal.Principal{Kind: principal.User, ID: "usr_test", Org: s.org, Project: s.project})
	return s.db.InTx(ctx, s.org, func(tx pgx.Tx) error { return fn(ctx, tx) })
}

func (s *shelf) create(name string) (a agents.Agent, err error) {
	err = s.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		a, err = s.Create(ctx, tx, s.org, agents.CreateInput{Project: s.project, Name: name, Definition: definition("one")})
		return err
	})
	return a, err
}

func (s *shelf) update(agent id.Agent, in agents.UpdateInput) (a agents.Agent, err error) {
	err = s.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		a, err = s.Update(ctx, tx, s.org, agent, in)
		return err
	})
	return a, err
}

func (s *shelf) version(agent id.Agent, n int) (v agents.Version, err error) {
	err = s.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		v, err = s.GetVersion(ctx, tx, s.org, agent, n)
		return err
	})
	return v, err
}

func (s *shelf) putAlias(agent id.Agent, name string, version int, ifRevision int64) (a agents.Alias, err error) {
	err = s.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		a, err = s.PutAlias(ctx, tx, s.org, agent, name, version, ifRevision)
		return err
	})
	return a, err
}

func (s *shelf) resolve(ref agents.Ref) (snapshot journal.Snapshot, err error) {
	err = s.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		var project id.Project
		snapshot, project, err = s.Resolve(ctx, tx, s.org, ref)
		if err == nil {
			require.Equal(s.t, s.project, project)
		}
		return err
	})
	return snapshot, err
}

func (s *shelf) archive(agent id.Agent) (a agents.Agent, err error) {
	err = s.tx(func(ctx context.Context, tx pgx.Tx) (err error) {
		a, err = s.Archive(ctx, tx, s.org, agent)
		return err
	})
	return a, err
}

func definition(system string) journal.Definition {
	return journal.Definition{Model: "test/model", System: system, Tools: []string{"bash"}}
}

func TestEachChangeMakesAVersionAndNoneChanges(t *testing.T) {
	s := newShelf(t)
	a, err := s.create("  Tester ")
	require.NoError(t, err)
	require.Equal(t, "Tester", a.Name)
	require.Equal(t, 1, a.Version)
	require.Equal(t, "usr_test", a.CreatedBy)
	require.Equal(t, int64(agents.DefaultMaxTokens), a.Definition.MaxTokens)
	require.Equal(t, "queue", a.Definition.IfRunning)

	two := definition("two")
	a, err = s.update(a.ID, agents.UpdateInput{Definition: &two})
	require.NoError(t, err)
	require.Equal(t, 2, a.Version)
	require.Equal(t, "two", a.Definition.System)
	first, err := s.version(a.ID, 1)
	require.NoError(t, err)
	require.Equal(t, "one", first.Definition.System)

	t.Run("what does not differ makes none", func(t *testing.T) {
		again, err := s.update(a.ID, agents.UpdateInput{Definition: &two})
		require.NoError(t, err)
		require.Equal(t, 2, again.Version)
		name := "Renamed"
		renamed, err := s.update(a.ID, agents.UpdateInput{Name: &name})
		require.NoError(t, err)
		require.Equal(t, 2, renamed.Version)
		require.Equal(t, "Renamed", renamed.Name)
	})
	t.Run("going back makes a new one", func(t *testing.T) {
		back, err := s.update(a.ID, agents.UpdateInput{Definition: &first.Definition})
		require.NoError(t, err)
		require.Equal(t, 3, back.Version)
	})
	t.Run("the database refuses to change one", func(t *testing.T) {
		for _, statement := range []string{"UPDATE agent_versions SET definition = '{}'", "DELETE FROM agent_versions"} {
			err := s.tx(func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, statement)
				return err
			})
			require.ErrorContains(t, err, "permission denied", statement)
		}
	})
	t.Run("they are listed newest first", func(t *testing.T) {
		require.NoError(t, s.tx(func(ctx context.Context, tx pgx.Tx) error {
			all, err := s.ListVersions(ctx, tx, s.org, a.ID, 0, 10)
			require.NoError(t, err)
			require.Equal(t, []int{3, 2, 1}, []int{all[0].Version, all[1].Version, all[2].Version})
			older, err := s.ListVersions(ctx, tx, s.org, a.ID, 3, 1)
			require.Len(t, older, 1)
			require.Equal(t, 2, older[0].Version)
			return err
		}))
	})
	_, err = s.version(a.ID, 4)
	require.True(t, fault.IsCode(err, "not_found"))
}

func TestTwoEditorsDoNotOverwriteEachOther(t *testing.T) {
	s := newShelf(t)
	a, err := s.create("Tester")
	require.NoError(t, err)
	mine, theirs := definition("mine"), definition("theirs")
	_, err = s.update(a.ID, agents.UpdateInput{Definition: &theirs, IfVersion: 1})
	require.NoError(t, err)
	_, err = s.update(a.ID, agents.UpdateInput{Definition: &mine, IfVersion: 1})
	require.True(t, fault.IsCode(err, "precondition_failed"), "%v", err)
	require.ErrorContains(t, err, "at version 2 now, not 1")
}

func TestANameIsTakenOnceAProject(t *testing.T) {
	s := newShelf(t)
	first, err := s.create("Tester")
	require.NoError(t, err)
	_, err = s.create("TESTER")
	require.True(t, fault.IsCode(err, "state_conflict"), "%v", err)
	require.Equal(t, fault.Conflict, fault.As(err).Kind)
	require.Contains(t, fault.As(err).Message, "has an agent of that name already")

	second, err := s.create("Other")
	require.NoError(t, err)
	name := "tester"
	_, err = s.update(second.ID, agents.UpdateInput{Name: &name})
	require.True(t, fault.IsCode(err, "state_conflict"), "%v", err)

	elsewhere := *s
	elsewhere.project = id.New[id.Project]()
	_, err = elsewhere.create("Tester")
	require.NoError(t, err, "another project has names of its own")

	_, err = s.archive(first.ID)
	require.NoError(t, err)
	_, err = s.create("Tester")
	require.NoError(t, err, "an archived agent gives its name free")
}

func TestAliases(t *testing.T) {
	s := newShelf(t)
	a, err := s.create("Tester")
	require.NoError(t, err)
	two := definition("two")
	_, err = s.update(a.ID, agents.UpdateInput{Definition: &two})
	require.NoError(t, err)

	alias, err := s.putAlias(a.ID, "live", 1, 0)
	require.NoError(t, err)
	require.Equal(t, int64(1), alias.Revision)
	_, err = s.putAlias(a.ID, "live", 2, 0)
	require.True(t, fault.IsCode(err, "precondition_failed"), "0 says that it must not exist")
	alias, err = s.putAlias(a.ID, "live", 2, 1)
	require.NoError(t, err)
	require.Equal(t, int64(2), alias.Revision)
	require.Equal(t, 2, alias.Version)
	_, err = s.putAlias(a.ID, "live", 1, 1)
	require.True(t, fault.IsCode(err, "precondition_failed"), "somebody moved it since")
	alias, err = s.putAlias(a.ID, "live", 1, -1)
	require.NoError(t, err)
	require.Equal(t, int64(3), alias.Revision)

	for _, name := range []string{"", "Live", "1live", "-live", "li ve", "live_1", strings.Repeat("a", 64)} {
		_, err = s.putAlias(a.ID, name, 1, -1)
		require.True(t, fault.IsCode(err, "invalid_request"), "%q: %v", name, err)
	}
	_, err = s.putAlias(a.ID, strings.Repeat("a", 63), 1, -1)
	require.NoError(t, err)
	for _, version := range []int{0, -1, 3} {
		_, err = s.putAlias(a.ID, "live", version, -1)
		require.True(t, fault.IsCode(err, "invalid_request"))
		require.ErrorContains(t, err, "The agent has versions 1 to 2.")
	}

	require.NoError(t, s.tx(func(ctx context.Context, tx pgx.Tx) error {
		all, err := s.ListAliases(ctx, tx, s.org, a.ID)
		require.Len(t, all, 2)
		return err
	}))
	remove := func() error {
		return s.tx(func(ctx context.Context, tx pgx.Tx) error { return s.DeleteAlias(ctx, tx, s.org, a.ID, "live") })
	}
	require.NoError(t, remove())
	require.True(t, fault.IsCode(remove(), "not_found"))
	_, err = s.resolve(agents.Ref{Agent: a.ID, Alias: "live"})
	require.True(t, fault.IsCode(err, "not_found"))
}

func TestWhatAnInvokeNames(t *testing.T) {
	s := newShelf(t)
	a, err := s.create("Tester")
	require.NoError(t, err)
	two := definition("two")
	_, err = s.update(a.ID, agents.UpdateInput{Definition: &two})
	require.NoError(t, err)
	_, err = s.putAlias(a.ID, "live", 1, -1)
	require.NoError(t, err)
	for ref, want := range map[agents.Ref]int{{}: 2, {Version: 1}: 1, {Alias: "live"}: 1} {
		ref.Agent = a.ID
		got, err := s.resolve(ref)
		require.NoError(t, err)
		require.Equal(t, want, got.Version)
		require.Equal(t, a.ID, got.ID)
		require.Equal(t, "Tester", got.Name)
	}
	for _, ref := range []agents.Ref{{Agent: a.ID, Version: 9}, {Agent: a.ID, Alias: "none"}, {Agent: id.New[id.Agent]()}} {
		_, err := s.resolve(ref)
		require.True(t, fault.IsCode(err, "not_found"), "%v", err)
	}
}

func TestAnArchivedAgentIsReadOnly(t *testing.T) {
	s := newShelf(t)
	a, err := s.create("Tester")
	require.NoError(t, err)
	archived, err := s.archive(a.ID)
	require.NoError(t, err)
	require.NotNil(t, archived.ArchivedAt)
	again, err := s.archive(a.ID)
	require.NoError(t, err)
	require.Equal(t, archived.ArchivedAt, again.ArchivedAt, "archiving twice is harmless")

	two := definition("two")
	_, err = s.update(a.ID, agents.UpdateInput{Definition: &two})
	require.True(t, fault.IsCode(err, "archived"))
	_, err = s.putAlias(a.ID, "live", 1, -1)
	require.True(t, fault.IsCode(err, "archived"))
	_, err = s.resolve(agents.Ref{Agent: a.ID})
	require.True(t, fault.IsCode(err, "archived"))
	_, err = s.version(a.ID, 1)
	require.NoError(t, err)

	list := func(f agents.ListFilter) (names []string) {
		f.Project, f.Limit = s.project, 10
		require.NoError(t, s.tx(func(ctx context.Context, tx pgx.Tx) error {
			all, err := s.List(ctx, tx, s.org, f)
			for _, a := range all {
				names = append(names, a.Name)
			}
			return err
		}))
		return names
	}
	_, err = s.create("50% off_er")
	require.NoError(t, err)
	require.Equal(t, []string{"50% off_er"}, list(agents.ListFilter{}))
	require.Equal(t, []string{"50% off_er", "Tester"}, list(agents.ListFilter{IncludeArchived: true}))
	require.Equal(t, []string{"50% off_er"}, list(agents.ListFilter{NameContains: "% OFF_"}))
	require.Empty(t, list(agents.ListFilter{NameContains: "5%r"}), "a person's % is no wild card")
}

func TestAnotherOrganisationsAgentIsNotThere(t *testing.T) {
	s := newShelf(t)
	a, err := s.create("Tester")
	require.NoError(t, err)
	other := *s
	other.org = dbtest.NewOrg(t, s.db)
	two := definition("two")
	_, err = other.update(a.ID, agents.UpdateInput{Definition: &two})
	require.True(t, fault.IsCode(err, "not_found"))
	_, err = other.resolve(agents.Ref{Agent: a.ID})
	require.True(t, fault.IsCode(err, "not_found"))
	_, err = other.putAlias(a.ID, "live", 1, -1)
	require.True(t, fault.IsCode(err, "not_found"))
	_, err = other.archive(a.ID)
	require.True(t, fault.IsCode(err, "not_found"))
	// With the query's own condition out of the way, row-level security alone still yields nothing.
	require.NoError(t, other.tx(func(ctx context.Context, tx pgx.Tx) error {
		_, err := s.Get(ctx, tx, s.org, a.ID)
		require.True(t, fault.IsCode(err, "not_found"))
		return nil
	}))
}

func TestWhatADefinitionMayNotSay(t *testing.T) {
	nothing := money.Nanos(0)
	many := make([]string, agents.MaxTools+1)
	tests := []struct {
		name     string
		change   func(*journal.Definition)
		pointers []string
		says     string
	}{
		{"no model", func(d *journal.Definition) { d.Model = "  " }, []string{"/agent/model"}, "Name a model"},
		{"an unknown model", func(d *journal.Definition) { d.Model = "test/none" }, []string{"/agent/model"}, `There is no model "test/none" here`},
		{"a long prompt", func(d *journal.Definition) { d.System = strings.Repeat("x", agents.MaxSystemBytes+1) }, []string{"/agent/system"}, "The system prompt has 262145 bytes; at most 262144 are allowed."},
		{"a prompt that is no text", func(d *journal.Definition) { d.System = "a\xff" }, []string{"/agent/system"}, "must be UTF-8"},
		{"a prompt with a null character", func(d *journal.Definition) { d.System = "a\x00" }, []string{"/agent/system"}, "null character"},
		{"an unknown tool", func(d *journal.Definition) { d.Tools = []string{"bash", "telnet"} }, []string{"/agent/tools/1"}, `There is no tool "telnet" here.`},
		{"a tool twice", func(d *journal.Definition) { d.Tools = []string{"bash", "python", "bash"} }, []string{"/agent/tools/2"}, `The tool "bash" is listed twice.`},
		{"too many tools", func(d *journal.Definition) { d.Tools = many }, nil, "at most 64 tools"},
		{"less than no output", func(d *journal.Definition) { d.MaxTokens = -1 }, []string{"/agent/max_tokens"}, "between 1 and 128000"},
		{"too much output", func(d *journal.Definition) { d.MaxTokens = agents.MaxOutputTokens + 1 }, []string{"/agent/max_tokens"}, "between 1 and 128000"},
		{"an unknown wish", func(d *journal.Definition) { d.IfRunning = "wait" }, []string{"/agent/if_running"}, `"queue", "interrupt" or "reject"`},
		{"a ceiling of nothing", func(d *journal.Definition) { d.Limits.MaxCost = &nothing }, []string{"/agent/limits/max_cost"}, "more than zero"},
		{"a limit below zero", func(d *journal.Definition) { d.Limits.MaxSteps = -1 }, []string{"/agent/limits/max_steps"}, "between 0 (no limit) and 1000000"},
		{"several things at once", func(d *journal.Definition) { d.Model, d.MaxTokens, d.Limits.MaxDepth = "", -1, 65 }, []string{"/agent/model", "/agent/max_tokens", "/agent/limits/max_depth"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := definition("ok")
			tt.change(&d)
			_, err := catalogue.Check("/agent", d)
			f := fault.As(err)
			require.Equal(t, "invalid_request", f.Code)
			require.ErrorContains(t, err, tt.says)
			if tt.pointers == nil {
				return
			}
			var at []string
			for _, field := range f.Fields {
				at = append(at, field.Pointer)
			}
			require.Equal(t, tt.pointers, at)
		})
	}
}

func TestWhatCannotBeSaved(t *testing.T) {
	s := newShelf(t)
	for name, in := range map[string]agents.CreateInput{
		"no name":            {Name: " "},
		"two lines":          {Name: "a\nb"},
		"a long name":        {Name: strings.Repeat("x", agents.MaxNameLength+1)},
		"a long description": {Name: "ok", Description: strings.Repeat("x", 2001)},
		"an empty key":       {Name: "ok", Metadata: map[string]string{"": "x"}},
		"a long value":       {Name: "ok", Metadata: map[string]string{"k": strings.Repeat("x", 513)}},
	} {
		t.Run(name, func(t *testing.T) {
			in.Project, in.Definition = s.project, definition("ok")
			err := s.tx(func(ctx context.Context, tx pgx.Tx) error {
				_, err := s.Create(ctx, tx, s.org, in)
				return err
			})
			require.True(t, fault.IsCode(err, "invalid_request"), "%v", err)
		})
	}
}
