-- What an alias is for, in its owner's words.
ALTER TABLE aliases ADD COLUMN description TEXT;
