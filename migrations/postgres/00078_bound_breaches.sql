-- +goose Up

-- Models that once used more than the bound that was held for them: the bound is wrong, and until it is mended nothing more is held by it.
CREATE TABLE bound_breaches (
  model        text COLLATE "C" PRIMARY KEY,
  step_id      text COLLATE "C" NOT NULL,
  excess_nanos bigint NOT NULL CHECK (excess_nanos > 0),
  noted_at     timestamptz NOT NULL
);
SELECT ambit_platform_table('bound_breaches', 'SELECT, INSERT, DELETE', '', 'a model''s bound is the instance''s, whoever found it wrong');

-- +goose Down
DROP TABLE bound_breaches;
