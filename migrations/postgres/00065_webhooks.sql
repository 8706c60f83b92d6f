-- +goose Up

-- Where an organisation wants to hear of events. One with a project hears of that project's events alone.
CREATE TABLE webhooks (
  org_id          text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id              text COLLATE "C" NOT NULL,
  project_id      text COLLATE "C",
  url             text NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
  description     text NOT NULL CHECK (length(description) <= 500),
  -- Types of event, or '*' alone for all.
  event_types     text[] NOT NULL CHECK (cardinality(event_types) BETWEEN 1 AND 64),
  status          text NOT NULL CHECK (status IN ('active', 'disabled')),
  disabled_reason text CHECK (disabled_reason IN ('requested', 'failing', 'gone')),
  -- The secrets are sealed under the master key: signing needs them in clear. The previous one signs too until its time ends.
  sealed_secret   bytea NOT NULL,
  sealed_previous bytea,
  previous_until  timestamptz,
  -- Since when no delivery has succeeded, if the last one failed.
  failing_since   timestamptz,
  version         bigint NOT NULL DEFAULT 1,
  created_by      text COLLATE "C" NOT NULL,
  created_at      timestamptz NOT NULL,
  updated_at      timestamptz NOT NULL,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, project_id) REFERENCES projects,
  CHECK ((status = 'disabled') = (disabled_reason IS NOT NULL)),
  CHECK ((sealed_previous IS NULL) = (previous_until IS NULL))
);
SELECT ambit_tenant_table('webhooks');
SELECT ambit_worker_table('webhooks', 'SELECT, UPDATE (failing_since)', 'the dispatcher sends for all organisations, and notes which endpoints fail');
-- Whether anybody of the organisation listens at all: asked by whoever publishes.
CREATE INDEX webhooks_active ON webhooks (org_id) WHERE status = 'active';

-- What happened, once for all endpoints. Written in the transaction that it tells of. It is "thin": it says which thing changed, and who may
-- see that thing asks the API for it.
CREATE TABLE webhook_events (
  org_id     text COLLATE "C" NOT NULL,
  id         text COLLATE "C" NOT NULL,
  type       text NOT NULL,
  project_id text COLLATE "C",
  data       json NOT NULL,
  created_at timestamptz NOT NULL,
  -- When its deliveries were made, one for each endpoint that wants it.
  fanned_at  timestamptz,
  PRIMARY KEY (org_id, id)
);
SELECT ambit_tenant_table('webhook_events', 'SELECT, INSERT');
SELECT ambit_worker_table('webhook_events', 'SELECT, UPDATE (fanned_at), DELETE', 'the dispatcher makes the deliveries of all organisations'' events, and deletes old ones');
-- Finds the events whose deliveries are still to be made.
CREATE INDEX webhook_events_waiting ON webhook_events (created_at) WHERE fanned_at IS NULL;
-- Finds what the sweep deletes.
CREATE INDEX webhook_events_by_age ON webhook_events (created_at);

-- One event for one endpoint.
CREATE TABLE webhook_deliveries (
  org_id        text COLLATE "C" NOT NULL,
  id            text COLLATE "C" NOT NULL,
  webhook_id    text COLLATE "C" NOT NULL,
  event_id      text COLLATE "C" NOT NULL,
  status        text NOT NULL CHECK (status IN ('pending', 'delivered', 'failed', 'cancelled')),
  attempts      integer NOT NULL DEFAULT 0,
  due_at        timestamptz NOT NULL,
  -- A claim has an end, so that what a dispatcher that died had claimed is taken up again.
  claimed_until timestamptz,
  created_at    timestamptz NOT NULL,
  ended_at      timestamptz,
  PRIMARY KEY (org_id, id),
  FOREIGN KEY (org_id, webhook_id) REFERENCES webhooks ON DELETE CASCADE,
  FOREIGN KEY (org_id, event_id) REFERENCES webhook_events ON DELETE CASCADE
);
SELECT ambit_tenant_table('webhook_deliveries');
SELECT ambit_worker_table('webhook_deliveries', 'SELECT, INSERT, UPDATE', 'the dispatcher claims, sends and notes the deliveries of all organisations');
-- The claim of what is due, endpoint by endpoint.
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at) WHERE status = 'pending';
-- An endpoint's deliveries, newest first, and those of it that are under way.
CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (org_id, webhook_id, id DESC);
-- What goes with an event that is deleted.
CREATE INDEX webhook_deliveries_by_event ON webhook_deliveries (org_id, event_id);

-- Each try, for whoever wonders why nothing arrived.
CREATE TABLE webhook_attempts (
  org_id      text COLLATE "C" NOT NULL,
  delivery_id text COLLATE "C" NOT NULL,
  number      integer NOT NULL CHECK (number > 0),
  started_at  timestamptz NOT NULL,
  duration_ms integer NOT NULL CHECK (duration_ms >= 0),
  -- Null when there was no answer.
  status      integer,
  error       text CHECK (length(error) <= 500),
  -- The beginning of the answer's body, for a person to read.
  response    text NOT NULL CHECK (octet_length(response) <= 1024),
  PRIMARY KEY (org_id, delivery_id, number),
  FOREIGN KEY (org_id, delivery_id) REFERENCES webhook_deliveries ON DELETE CASCADE
);
SELECT ambit_tenant_table('webhook_attempts', 'SELECT');
SELECT ambit_worker_table('webhook_attempts', 'SELECT, INSERT', 'the dispatcher notes each try, for all organisations');

-- A session that comes to rest or ends is told of wherever its journal says so, by whichever way the event was written. The body is made
-- here from the event itself, so that nobody who appends to a journal can forget it.
-- +goose StatementBegin
CREATE FUNCTION ambit_tell_of_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO webhook_events (org_id, id, type, project_id, data, created_at)
  SELECT NEW.org_id, NEW.id, NEW.type, s.project_id,
         json_build_object('type', 'session', 'id', s.id, 'project_id', s.project_id, 'seq', NEW.seq, 'stop_reason', json_build_object('type', NEW.payload -> 'stop_reason' ->> 'type')),
         NEW.created_at
  FROM sessions s
  WHERE s.org_id = NEW.org_id AND s.id = NEW.session_id
    AND EXISTS (SELECT FROM webhooks w WHERE w.org_id = NEW.org_id AND w.status = 'active');
  RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER tell_of_session AFTER INSERT ON events FOR EACH ROW
  WHEN (NEW.type IN ('session.status_idle', 'session.status_terminated')) EXECUTE FUNCTION ambit_tell_of_session();

-- A mail with a name of its own is queued once, however often it is asked for: an alert, say, at the same threshold of the same period.
ALTER TABLE outgoing_mail ADD COLUMN once_key text CHECK (length(once_key) <= 300);
-- Refuses the second mail of one name.
CREATE UNIQUE INDEX outgoing_mail_once ON outgoing_mail (once_key) WHERE once_key IS NOT NULL;

-- +goose Down
DROP INDEX outgoing_mail_once;
ALTER TABLE outgoing_mail DROP COLUMN once_key;
DROP TRIGGER tell_of_session ON events;
DROP FUNCTION ambit_tell_of_session();
DROP TABLE webhook_attempts, webhook_deliveries, webhook_events, webhooks;
