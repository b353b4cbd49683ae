-- Whether a function reaches the network.
ALTER TABLE functions ADD COLUMN network TEXT NOT NULL DEFAULT 'on';
