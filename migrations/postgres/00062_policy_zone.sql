-- +goose Up

-- Hours in rules are read by the clock of the organisation's zone, so that a change of the zone is a change of the rules: whoever has them
-- in memory loads both anew. Without rules there is no version, and nothing to do.
-- +goose StatementBegin
CREATE FUNCTION ambit_zone_changes_policy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE policy_versions SET version = nextval('policy_version_numbers'), changed_at = now() WHERE org_id = NEW.id;
  RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER zone_changes_policy AFTER UPDATE OF time_zone ON organizations
  FOR EACH ROW WHEN (OLD.time_zone IS DISTINCT FROM NEW.time_zone) EXECUTE FUNCTION ambit_zone_changes_policy();

-- +goose Down
DROP TRIGGER zone_changes_policy ON organizations;
DROP FUNCTION ambit_zone_changes_policy();
