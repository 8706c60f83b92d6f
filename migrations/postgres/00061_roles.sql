-- +goose Up

-- Roles that an organisation makes of its own, beside the five that every one has.
CREATE TABLE roles (
  org_id      text COLLATE "C" NOT NULL REFERENCES organizations (id),
  id          text COLLATE "C" NOT NULL,
  name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 60),
  description text NOT NULL CHECK (length(description) <= 500),
  permissions text[] NOT NULL CHECK (cardinality(permissions) BETWEEN 1 AND 128),
  version     bigint NOT NULL DEFAULT 1,
  created_at  timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL,
  PRIMARY KEY (org_id, id)
);
SELECT ambit_tenant_table('roles');
-- A name means one role, however it is written.
CREATE UNIQUE INDEX roles_name_is_taken ON roles (org_id, lower(name));
SELECT ambit_definer_table('roles', 'SELECT', 'lists the organisations of the signed-in person, with what the person may do there');

ALTER TABLE members DROP CONSTRAINT members_role_check;
ALTER TABLE members ADD COLUMN role_id text COLLATE "C";
ALTER TABLE members ADD CONSTRAINT members_role_check CHECK (
  (role IN ('owner', 'admin', 'billing', 'developer', 'viewer') AND role_id IS NULL) OR (role = 'custom' AND role_id IS NOT NULL));
ALTER TABLE members ADD CONSTRAINT members_custom_role FOREIGN KEY (org_id, role_id) REFERENCES roles (org_id, id);
-- Finds who has a role, before it is deleted.
CREATE INDEX members_by_custom_role ON members (org_id, role_id) WHERE role_id IS NOT NULL;

CREATE OR REPLACE VIEW my_memberships WITH (security_barrier) AS
  SELECT m.id, m.org_id, m.user_id, m.role, m.created_at, o.name AS org_name, o.slug AS org_slug,
         m.role_id, r.name AS role_name, r.permissions AS role_permissions
  FROM members m JOIN organizations o ON o.id = m.org_id LEFT JOIN roles r ON r.org_id = m.org_id AND r.id = m.role_id
  WHERE m.user_id = ambit_user();

-- +goose Down
DROP VIEW my_memberships;
CREATE VIEW my_memberships WITH (security_barrier) AS
  SELECT m.id, m.org_id, m.user_id, m.role, m.created_at, o.name AS org_name, o.slug AS org_slug
  FROM members m JOIN organizations o ON o.id = m.org_id
  WHERE m.user_id = ambit_user();
ALTER VIEW my_memberships OWNER TO ambit_definer;
GRANT SELECT ON my_memberships TO ambit_app;
UPDATE members SET role = 'viewer', role_id = NULL WHERE role = 'custom';
ALTER TABLE members DROP CONSTRAINT members_role_check;
ALTER TABLE members DROP COLUMN role_id;
ALTER TABLE members ADD CONSTRAINT members_role_check CHECK (role IN ('owner', 'admin', 'billing', 'developer', 'viewer'));
DROP TABLE roles;
