-- What a service has: a role, a database of its own, a table.
create role quickstart login password 'not-a-secret';
create database quickstart owner quickstart;
\connect quickstart
set role quickstart;
create table file (id text primary key, version bigint not null);
insert into file select 'file-' || n, 0 from generate_series(1, 50) as n;
