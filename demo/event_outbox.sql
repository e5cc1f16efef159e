-- The outbox table of the essay platform's services as their own migrations make it, in its newer form, with column topic.
create table event_outbox (
  id uuid primary key,
  aggregate_id varchar(255) not null,
  aggregate_type varchar(100) not null,
  event_type varchar(255) not null,
  event_data json not null,
  event_key varchar(255),
  topic varchar(255) not null,
  created_at timestamptz not null default now(),
  published_at timestamptz,
  retry_count int not null default 0,
  last_error text
);
create index ix_event_outbox_unpublished on event_outbox (published_at, created_at) where published_at is null;
create index ix_event_outbox_aggregate on event_outbox (aggregate_type, aggregate_id);
create index ix_event_outbox_event_type on event_outbox (event_type);
