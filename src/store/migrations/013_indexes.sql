-- Deployments by status, of one function or of all, and the automatic rollbacks of an alias. The index by status takes
-- the place of the two for one status each.
CREATE INDEX function_deployments_status ON function_deployments (status);
CREATE INDEX function_deployments_function_status ON function_deployments (function_id, status);
CREATE INDEX function_deployments_auto_rollbacks ON function_deployments (function_id, alias) WHERE kind = 'auto_rollback';
DROP INDEX function_deployments_pending;
DROP INDEX function_deployments_building;

-- What an environment is used by, the aliases that expire, and the functions that nobody has claimed.
CREATE INDEX aliases_environment ON aliases (environment);
CREATE INDEX aliases_expiring ON aliases (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX variables_environment ON variables (environment);
CREATE INDEX functions_provisional ON functions (id) WHERE is_provisional = 1;
