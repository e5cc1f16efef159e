-- Databases as two service teams have them before they know of an outbox. Passwords come as variables, from the Secrets' source.
\set ON_ERROR_STOP 1
\set QUIET 1

-- file-service: one role that owns its database, as most operators of PostgreSQL set it up.
create role file_service login password :'password';
create database file_service owner file_service;

-- essay-lifecycle-service: the service, the relay and the owner of the schema are three roles.
create role essay_lifecycle_owner login password :'password';
create role essay_lifecycle_service login password :'password';
create role essay_lifecycle_relay login password :'password';
create database essay_lifecycle owner essay_lifecycle_owner;

\connect file_service
set role file_service;
create table files (id text primary key, revision bigint not null);
\connect essay_lifecycle
set role essay_lifecycle_owner;
create table essays (id text primary key, revision bigint not null);
grant select, insert, update on essays to essay_lifecycle_service;
