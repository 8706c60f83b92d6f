-- +goose Up

-- Three roles besides the owner that runs migrations. Two log in; neither owns a table nor bypasses row-level security.
--   ambit_app     does all work for one organisation, which each transaction names with set_config('app.org_id', …, true).
--   ambit_worker  claims work across organisations, on the tables that ambit_worker_table() lists and on no others.
--   ambit_definer cannot log in: it owns the few functions that look something up before the organisation is known.
-- Their passwords are set at start by the program, never here.
-- +goose StatementBegin
DO $$
DECLARE r text;
BEGIN
  FOREACH r IN ARRAY ARRAY['ambit_app', 'ambit_worker', 'ambit_definer'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT', r);
    END IF;
  END LOOP;
  IF NOT pg_has_role(current_user, 'ambit_definer', 'MEMBER') THEN
    EXECUTE format('GRANT ambit_definer TO %I', current_user);
  END IF;
END $$;
-- +goose StatementEnd

CREATE EXTENSION IF NOT EXISTS citext;
CREATE EXTENSION IF NOT EXISTS pg_trgm;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO ambit_app, ambit_worker;
-- A role must be able to create in a schema to own a function there.
GRANT USAGE, CREATE ON SCHEMA public TO ambit_definer;

-- ambit_org is the organisation of the current transaction. Without one it is null or empty, and every policy yields nothing.
CREATE FUNCTION ambit_org() RETURNS text
  LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT nullif(current_setting('app.org_id', true), '') $$;

-- ambit_tenant_table forces row-level security on a table: ambit_app sees and writes only rows of the transaction's organisation.
-- Pass 'SELECT, INSERT' as the privileges of an append-only table.
-- +goose StatementBegin
CREATE FUNCTION ambit_tenant_table(tbl regclass, privileges text DEFAULT 'SELECT, INSERT, UPDATE, DELETE', org_column text DEFAULT 'org_id')
  RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', tbl);
  EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', tbl);
  EXECUTE format('CREATE POLICY tenant ON %s TO ambit_app USING (%I = ambit_org()) WITH CHECK (%I = ambit_org())', tbl, org_column, org_column);
  EXECUTE format('GRANT %s ON %s TO ambit_app', privileges, tbl);
END $$;
-- +goose StatementEnd

-- ambit_worker_table opens a tenant table to the worker's role, across organisations, with the privileges named and for the reason given.
-- The reason is kept as the policy's comment; a test lists the tables that have one.
-- +goose StatementBegin
CREATE FUNCTION ambit_worker_table(tbl regclass, privileges text, reason text)
  RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE POLICY worker ON %s TO ambit_worker USING (true) WITH CHECK (true)', tbl);
  EXECUTE format('GRANT %s ON %s TO ambit_worker', privileges, tbl);
  EXECUTE format('COMMENT ON POLICY worker ON %s IS %L', tbl, reason);
END $$;
-- +goose StatementEnd

-- ambit_definer_table lets the look-up functions read a tenant table, for the reason given.
-- +goose StatementBegin
CREATE FUNCTION ambit_definer_table(tbl regclass, privileges text, reason text)
  RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT relrowsecurity FROM pg_class WHERE oid = tbl) THEN
    EXECUTE format('CREATE POLICY definer ON %s TO ambit_definer USING (true) WITH CHECK (true)', tbl);
    EXECUTE format('COMMENT ON POLICY definer ON %s IS %L', tbl, reason);
  END IF;
  EXECUTE format('GRANT %s ON %s TO ambit_definer', privileges, tbl);
END $$;
-- +goose StatementEnd

-- ambit_platform_table marks a table that has no tenant, with the reason. The catalogue test refuses any table that is neither this nor
-- under forced row-level security.
-- +goose StatementBegin
CREATE FUNCTION ambit_platform_table(tbl regclass, app_privileges text, worker_privileges text, reason text)
  RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF app_privileges <> '' THEN
    EXECUTE format('GRANT %s ON %s TO ambit_app', app_privileges, tbl);
  END IF;
  IF worker_privileges <> '' THEN
    EXECUTE format('GRANT %s ON %s TO ambit_worker', worker_privileges, tbl);
  END IF;
  EXECUTE format('COMMENT ON TABLE %s IS %L', tbl, 'no-tenant: ' || reason);
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION ambit_platform_table(regclass, text, text, text);
DROP FUNCTION ambit_definer_table(regclass, text, text);
DROP FUNCTION ambit_worker_table(regclass, text, text);
DROP FUNCTION ambit_tenant_table(regclass, text, text);
DROP FUNCTION ambit_org();
