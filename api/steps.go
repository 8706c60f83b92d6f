package api

import (
	"context"
	"strconv"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
)

type stepsIn struct {
	Session id.Session `path:"session_id"`
	Paging
}

func (a *API) listSteps(ctx context.Context, tx pgx.Tx, in stepsIn) (Page[Step], error) {
	if _, err := seenSession(ctx, tx, in.Session); err != nil {
		return Page[Step]{}, err
	}
	after, err := in.place.seq()
	if err != nil {
		return Page[Step]{}, err
	}
	steps, err := journal.Steps(ctx, tx, principal.From(ctx).Org, in.Session, after, in.place.fetch())
	if err != nil {
		return Page[Step]{}, err
	}
	return pageOf(in.place, steps, func(s journal.Step) string { return strconv.FormatInt(s.IntendedSeq, 10) }, stepFrom), nil
}

type stepIn struct {
	Session id.Session `path:"session_id"`
	Step    id.Step    `path:"step_id"`
}

func (a *API) getStep(ctx context.Context, tx pgx.Tx, in stepIn) (Step, error) {
	if _, err := seenSession(ctx, tx, in.Session); err != nil {
		return Step{}, err
	}
	s, err := journal.GetStep(ctx, tx, principal.From(ctx).Org, in.Step)
	if err != nil {
		return Step{}, err
	}
	if s.Session != in.Session {
		return Step{}, fault.NotFound()
	}
	return stepFrom(s), nil
}
