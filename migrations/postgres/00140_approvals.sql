-- +goose Up

-- Approvals: which effects a person decides on, what is asked, who decided, and what was read from outside. The rules are read together with the
-- permissions and share their version: whoever changes one of these tables of rules raises policy_versions in the same transaction.

CREATE TABLE approval_rules (
  org_id     text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id         text COLLATE "C" NOT NULL,
  -- The rule as governance/approval writes it. What it can't read again is an error, and nothing is decided without it.
  spec       jsonb NOT NULL,
  -- Who hears when the rule asks too often.
  owner_id   text COLLATE "C",
  version    bigint NOT NULL DEFAULT 1,
  created_by text COLLATE "C" NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, id)
);
SELECT ambit_tenant_table('approval_rules');

-- What holds for all of an organisation's approvals. Without a row, the defaults hold.
CREATE TABLE approval_settings (
  org_id       text COLLATE "C" PRIMARY KEY REFERENCES organizations (id),
  -- Whether a session that has read what came from outside still acts outside without asking: 'ask' or 'allow'.
  taint        text NOT NULL CHECK (taint IN ('ask', 'allow')),
  -- How often one person is asked within 24 hours before the rule's owner hears of it.
  asks_per_day integer NOT NULL CHECK (asks_per_day BETWEEN 1 AND 10000),
  version      bigint NOT NULL DEFAULT 1,
  updated_by   text COLLATE "C" NOT NULL,
  updated_at   timestamptz NOT NULL
);
SELECT ambit_tenant_table('approval_settings');

-- Each change of the rules or the settings, with the proof of who made it where it made them weaker.
CREATE TABLE approval_changes (
  org_id  text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id      bigint GENERATED ALWAYS AS IDENTITY,
  rule_id text COLLATE "C" NOT NULL,
  by_id   text COLLATE "C" NOT NULL,
  before  jsonb,
  after   jsonb,
  proof   jsonb,
  at      timestamptz NOT NULL,
  PRIMARY KEY (org_id, id)
);
SELECT ambit_tenant_table('approval_changes', 'SELECT, INSERT');

CREATE TABLE approvals (
  org_id      text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id          text COLLATE "C" NOT NULL,
  session_id  text COLLATE "C" NOT NULL,
  project_id  text COLLATE "C" NOT NULL,
  agent_id    text COLLATE "C" NOT NULL DEFAULT '',
  -- The event with which the agent asked for it: ids of tool uses are the model's own, and it may give one twice.
  tool_use_seq bigint NOT NULL CHECK (tool_use_seq > 0),
  -- SHA-256 of the action in canonical JSON: tool, arguments, agent, session, principal, mandate.
  digest      bytea NOT NULL CHECK (octet_length(digest) = 32),
  status      text NOT NULL CHECK (status IN ('pending', 'approved', 'refused', 'edited', 'expired', 'void', 'used')),
  -- The rules that fired and what they demand, as they were when it was asked.
  demand      jsonb NOT NULL,
  -- What will be done, for a person to look at.
  action      jsonb NOT NULL,
  -- The people who asked for it: the one for whom the session runs, those who gave it input, and who edited it.
  askers      text[] NOT NULL,
  stage       integer NOT NULL DEFAULT 0 CHECK (stage >= 0),
  escalated   boolean NOT NULL DEFAULT false,
  -- When silence is a refusal; of an approved one, until when it is good.
  expires_at  timestamptz NOT NULL,
  -- Up to which stage its approvers were told: 2 a stage, and 1 more once it was escalated.
  told        integer NOT NULL DEFAULT -1,
  asked_at    timestamptz NOT NULL,
  decided_at  timestamptz,
  decided_by  jsonb,
  reason      text NOT NULL DEFAULT '' CHECK (length(reason) <= 2000),
  -- The arguments that a person put in place of the agent's.
  edited      jsonb,
  -- The step that used it up.
  used_step   text COLLATE "C" CONSTRAINT approvals_used_once UNIQUE,
  version     bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, session_id) REFERENCES sessions (org_id, id),
  CHECK ((status = 'used') = (used_step IS NOT NULL))
);
SELECT ambit_tenant_table('approvals', 'SELECT, INSERT, UPDATE');
SELECT ambit_worker_table('approvals', 'SELECT', 'the keeper finds, for all organisations, whose approvers are to be told and whose time is over');
-- The inbox and the history, newest first.
CREATE INDEX approvals_by_status ON approvals (org_id, status, id DESC);
-- What became of a session's tool use.
CREATE INDEX approvals_by_session ON approvals (org_id, session_id, tool_use_seq, id DESC);
-- What the keeper looks for.
CREATE INDEX approvals_pending ON approvals (expires_at) WHERE status = 'pending';
-- One open question about one tool use, however many workers ask.
CREATE UNIQUE INDEX approvals_open_once ON approvals (org_id, session_id, tool_use_seq) WHERE status IN ('pending', 'approved');

-- Each person's decision. One person decides once about one approval, by whichever account and however often a link is used.
CREATE TABLE approval_decisions (
  org_id       text COLLATE "C" NOT NULL,
  approval_id  text COLLATE "C" NOT NULL,
  user_id      text COLLATE "C" NOT NULL,
  -- The mailbox behind the account, so that two accounts of one person are one.
  person       text NOT NULL,
  stage        integer NOT NULL,
  decision     text NOT NULL CHECK (decision IN ('approve', 'refuse', 'edit')),
  reason       text NOT NULL DEFAULT '' CHECK (length(reason) <= 2000),
  -- The absent member for whom it was decided.
  on_behalf_of text COLLATE "C" NOT NULL DEFAULT '',
  by           jsonb NOT NULL,
  proof        jsonb,
  at           timestamptz NOT NULL,
  PRIMARY KEY (org_id, approval_id, user_id),
  CONSTRAINT approval_decisions_one_person UNIQUE (org_id, approval_id, person),
  FOREIGN KEY (org_id, approval_id) REFERENCES approvals (org_id, id)
);
SELECT ambit_tenant_table('approval_decisions', 'SELECT, INSERT');

-- While a member is away, somebody else may decide in their place.
CREATE TABLE approval_absences (
  org_id     text COLLATE "C" NOT NULL,
  user_id    text COLLATE "C" NOT NULL,
  starts_at  timestamptz NOT NULL,
  ends_at    timestamptz NOT NULL,
  delegate   text COLLATE "C" NOT NULL DEFAULT '',
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (org_id, user_id),
  FOREIGN KEY (org_id, user_id) REFERENCES members (org_id, user_id) ON DELETE CASCADE,
  CHECK (starts_at < ends_at),
  CHECK (delegate <> user_id)
);
SELECT ambit_tenant_table('approval_absences');

-- Who was asked, and when: for the limit on how often one person is.
CREATE TABLE approval_asks (
  org_id      text COLLATE "C" NOT NULL,
  approval_id text COLLATE "C" NOT NULL,
  user_id     text COLLATE "C" NOT NULL,
  stage       integer NOT NULL,
  at          timestamptz NOT NULL,
  PRIMARY KEY (org_id, approval_id, user_id, stage)
);
SELECT ambit_tenant_table('approval_asks', 'SELECT, INSERT');
-- Counts how often a person was asked lately.
CREATE INDEX approval_asks_by_user ON approval_asks (org_id, user_id, at);

-- What was admitted under a rule that looks at a sum over a window.
CREATE TABLE approval_sums (
  org_id       text COLLATE "C" NOT NULL,
  rule_id      text COLLATE "C" NOT NULL,
  step_id      text COLLATE "C" NOT NULL,
  agent_id     text COLLATE "C" NOT NULL,
  amount_nanos bigint NOT NULL CHECK (amount_nanos >= 0),
  at           timestamptz NOT NULL,
  PRIMARY KEY (org_id, rule_id, step_id)
);
SELECT ambit_tenant_table('approval_sums', 'SELECT, INSERT');
-- Sums a window up.
CREATE INDEX approval_sums_window ON approval_sums (org_id, rule_id, at);

-- The hosts that an agent has been let to, for rules on a first use. A payee is the host that is paid.
CREATE TABLE approval_seen (
  org_id   text COLLATE "C" NOT NULL,
  agent_id text COLLATE "C" NOT NULL,
  host     text COLLATE "C" NOT NULL,
  at       timestamptz NOT NULL,
  PRIMARY KEY (org_id, agent_id, host)
);
SELECT ambit_tenant_table('approval_seen', 'SELECT, INSERT');

-- What waits for an answer that nobody needs any more is void: the session has ended, or its tool uses were interrupted.
-- +goose StatementBegin
CREATE FUNCTION ambit_void_approvals() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE approvals a SET status = 'void', decided_at = NEW.created_at, version = a.version + 1,
      reason = CASE WHEN NEW.type = 'user.interrupt' THEN 'The session was interrupted.' ELSE 'The session has ended.' END
    WHERE a.org_id = NEW.org_id AND a.session_id = NEW.session_id AND a.status IN ('pending', 'approved');
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER void_approvals AFTER INSERT ON events FOR EACH ROW
  WHEN (NEW.type IN ('session.status_terminated', 'user.interrupt')) EXECUTE FUNCTION ambit_void_approvals();

-- Webhooks hear of each question and each answer from the journal itself.
-- +goose StatementBegin
CREATE FUNCTION ambit_tell_of_approval() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO webhook_events (org_id, id, type, project_id, data, created_at)
  SELECT NEW.org_id, NEW.id, NEW.type, s.project_id,
         json_build_object('type', 'approval', 'id', NEW.payload ->> 'approval_id', 'project_id', s.project_id, 'session_id', s.id, 'digest', NEW.payload ->> 'digest',
                           'decision', NEW.payload ->> 'decision'),
         NEW.created_at
  FROM sessions s
  WHERE s.org_id = NEW.org_id AND s.id = NEW.session_id
    AND EXISTS (SELECT FROM webhooks w WHERE w.org_id = NEW.org_id AND w.status = 'active');
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER tell_of_approval AFTER INSERT ON events FOR EACH ROW
  WHEN (NEW.type IN ('approval.requested', 'approval.decided')) EXECUTE FUNCTION ambit_tell_of_approval();

-- +goose Down
DROP TRIGGER tell_of_approval ON events;
DROP FUNCTION ambit_tell_of_approval();
DROP TRIGGER void_approvals ON events;
DROP FUNCTION ambit_void_approvals();
DROP TABLE approval_seen, approval_sums, approval_asks, approval_absences, approval_decisions, approvals, approval_changes, approval_settings, approval_rules;
