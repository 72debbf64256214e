-- The server's role and database, made once, when the volume is new. The role owns its database and
-- nothing else.
\set password `cat /run/secrets/database-password`
CREATE ROLE credit_risk LOGIN PASSWORD :'password';
CREATE DATABASE records OWNER credit_risk ENCODING 'UTF8' TEMPLATE template0;
REVOKE CONNECT ON DATABASE records FROM PUBLIC;
