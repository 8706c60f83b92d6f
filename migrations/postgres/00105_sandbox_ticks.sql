-- +goose Up

-- Until when a machine's time is held. The meter renews it before; a machine of which it has passed is used by nobody until it is. Null: it
-- was claimed by a release that did not hold time, and is due at once.
ALTER TABLE sandboxes ADD COLUMN held_until timestamptz;
-- The meter looks for what is due next.
CREATE INDEX sandboxes_due ON sandboxes (held_until NULLS FIRST) WHERE state <> 'ended';

-- +goose Down
DROP INDEX sandboxes_due;
ALTER TABLE sandboxes DROP COLUMN held_until;
