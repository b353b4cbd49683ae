-- What else changes about the alias when a deployment that waits for approval is approved.
ALTER TABLE function_deployments ADD COLUMN alias_change TEXT CHECK (json_type(alias_change) = 'object');
