//! What the reference page says beside the CRD: order, explanations, examples, annotations.

pub(super) struct Section {
    pub title: &'static str,
    /// Fields of `spec` that it lists, with all below them.
    pub roots: &'static [&'static str],
    pub text: &'static str,
    /// Part of a manifest. A test lays each over the manifest of the README and loads it.
    pub example: &'static str,
}

pub(super) const INTRODUCTION: &str = "\
<!-- Generated from the code: change the doc comments in src/api or the texts in
tests/it/generated_files/reference, then run `make generate`. -->
# Reference: the OutboxRelay manifest

This page lists every field of an `OutboxRelay`, API version `outboxrelay.dev/v1alpha1`, short name
`obr`. Paths are relative to `spec` unless the section says otherwise. The examples show parts of a
manifest; [examples/](../examples) has whole ones. `kubectl explain outboxrelay.spec --recursive`
prints the same fields.

- **required**: the field must be set whenever the object that contains it is set.
- **duration**: numbers with the units `ms`, `s`, `m` or `h`, for example `500ms` or `1m30s`.
- **quantity**: a quantity of Kubernetes, for example `100m` or `128Mi`.
- Secrets and ConfigMaps are always in the namespace of the `OutboxRelay`.

The API server rejects a manifest that breaks a type, a limit or one of the rules below. Without
Kubernetes, `outbox-relay run --manifest FILE` applies the same defaults and limits and reports the
field that breaks one.
";

pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "Database",
        roots: &["database"],
        text: "\
Set either `urlSecretRef`, or `host`, `name` and `credentialsSecretRef`.

Behind PgBouncer in transaction mode, set `pooler: true`. Each statement then runs in a transaction
of its own and is not prepared by name, so the pooler needs no special setting. Session mode works
too; statement mode does not.",
        example: "\
spec:
  database:
    host: file-service-db-rw.essays.svc
    name: file_service
    credentialsSecretRef: {name: file-service-db-app}   # keys username and password
    maxConnections: 5
",
    },
    Section {
        title: "Migration",
        roots: &["migration"],
        text: "\
The migration creates and upgrades the tables of the outbox. Give it a login of its own when the
relay's login must not own the schema; [Setting up](setup.md#database) shows the roles.",
        example: "\
spec:
  migration:
    policy: Apply
    database: {urlSecretRef: {name: file-service-db-owner, key: url}}   # the owner's login
    grants: {producers: [file_service_writer], relays: []}
    takeOverFrom: c1/essays/old        # only to take the schema over from another OutboxRelay
",
    },
    Section {
        title: "Kafka",
        roots: &["kafka"],
        text: "\
The relay sends with `acks=all` and an idempotent producer. You cannot change the properties that
order and delivery depend on.",
        example: "\
spec:
  kafka:
    bootstrapServers: [\"kafka-bootstrap.kafka.svc:9093\"]
    sasl:
      mechanism: SCRAM-SHA-512
      username: relay
      credentialsSecretRef: {name: file-service-kafka}   # key password
    properties: {compression.type: zstd, linger.ms: \"5\"}
",
    },
    Section {
        title: "Topics",
        roots: &["topics"],
        text: "\
Every topic must exist. A row goes to the topic that it names. A row without a topic goes where its
event type is listed, or else its aggregate type.",
        example: "\
spec:
  topics:
    - name: file.essay.content.provisioned.v1
      eventTypes: [EssayContentProvisionedV1]
    - name: file.events.v1
      aggregateTypes: [file]
      onPoison: DeadLetter
",
    },
    Section {
        title: "Records and batches",
        roots: &["recordHeaders", "batchSize", "pollInterval"],
        text: "\
[Records](records.md) describes what a consumer gets with each choice of `recordHeaders`.",
        example: "\
spec:
  recordHeaders: CloudEvents
  batchSize: 400
  pollInterval: 50ms
",
    },
    Section {
        title: "Breaker",
        roots: &["breaker"],
        text: "\
The circuit breaker watches Kafka's acknowledgements. While it is open, rows wait in the table and
the relay tests the connection from time to time; see [Outages](outages.md).",
        example: "\
spec:
  breaker: {slowAfter: 2s, openAfter: 10s, maxBackoff: 30s}
",
    },
    Section {
        title: "Replicas and scaling",
        roots: &["replicas", "scaling", "suspend"],
        text: "\
Set a fixed number with `replicas`, or let the operator choose one with `scaling`. Relays share 64
lanes, so at most 64 are allowed.

With `scaling`, the operator reads from the relays at least every 5 s how many rows wait and how old
the oldest is.

- It adds relays at once, and at most doubles their number.
- It adds none while Kafka is unavailable, while a lane is not reported, before the relays added
  last have started, or when those did not raise throughput.
- It removes relays when fewer were enough for `scaleDownStabilization` and can publish at the
  current rate.

The condition `ScalingActive`, `status.lastScale` and Events report what it did and why.",
        example: "\
spec:
  scaling:
    minReplicas: 1
    maxReplicas: 8
    targetBacklogPerReplica: 10000
    targetOldestAge: 5s
    scaleDownStabilization: 300s
  suspend: false
",
    },
    Section {
        title: "Pods",
        roots: &["template"],
        text: "These fields apply to the pods of the relays and of the migration.",
        example: "\
spec:
  template:
    resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {memory: 256Mi}}
    nodeSelector: {kubernetes.io/arch: amd64}
    tolerations: [{key: dedicated, operator: Equal, value: messaging, effect: NoSchedule}]
    labels: {team: essays}
    priorityClassName: messaging
    imagePullSecrets: [{name: registry}]
",
    },
    Section {
        title: "Monitoring and network",
        roots: &["monitoring", "networkPolicy"],
        text: "[Metrics](metrics.md) lists what the relays report.",
        example: "\
spec:
  monitoring: {podMonitor: true}
  networkPolicy: {enabled: true}
",
    },
];

pub(super) const TLS: Section = Section {
    title: "TLS",
    roots: &[],
    text: "\
`database.tls`, `migration.database.tls` and `kafka.tls` have the fields below. Without them the
connection is encrypted, and the server's certificate is checked against the system's roots.
[Secrets](secrets.md) describes how to rotate certificates.",
    example: "\
spec:
  kafka:
    tls:
      ca: {configMapRef: {name: platform-ca, key: ca.crt}}
      clientCertSecretRef: {name: file-service-kafka-client}   # keys tls.crt and tls.key
",
};

pub(super) const STATUS: &str = "\
The operator writes `status`. Paths are relative to `status`. [Reasons](reasons.md) lists the
conditions with their reasons, and what to do about each.";

pub(super) const COLUMNS: &str = "\
`kubectl get outboxrelays` prints these columns after the name.";

pub(super) const ANNOTATIONS_TEXT: &str = "Set these on an `OutboxRelay`.";

pub(super) const ANNOTATIONS: &[(&str, &str)] = &[
    (
        "outboxrelay.dev/paused",
        "While it is `\"true\"`, the operator writes nothing but the status.",
    ),
    (
        "outboxrelay.dev/reconcile-at",
        "Each new value starts a reconciliation at once: every child is compared and written again, \
         and a failed migration is tried again.",
    ),
    (
        "outboxrelay.dev/operator-name",
        "Name of the operator that manages this object, where a cluster has \
         [more than one](ha.md). Absent: the operator with the default name.",
    ),
];
