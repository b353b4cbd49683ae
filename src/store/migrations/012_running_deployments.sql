-- A deployment that runs has a row with the status `building`, which the row of its end replaces.
DROP TRIGGER function_deployments_stay;
CREATE TRIGGER function_deployments_stay BEFORE DELETE ON function_deployments WHEN old.status <> 'building'
BEGIN
    SELECT RAISE(ABORT, 'a deployment is kept for audit');
END;

CREATE INDEX function_deployments_building ON function_deployments (status) WHERE status = 'building';

-- Made by a deployment that has not ended well so far, and claimed by nobody else: it goes if none does.
ALTER TABLE functions ADD COLUMN is_provisional INTEGER NOT NULL DEFAULT 0 CHECK (is_provisional IN (0, 1));

CREATE TRIGGER functions_are_claimed_by_changes AFTER UPDATE OF updated_at ON functions
WHEN new.is_provisional = 1 AND new.status <> 'deleted'
BEGIN
    UPDATE functions SET is_provisional = 0 WHERE id = new.id;
END;
