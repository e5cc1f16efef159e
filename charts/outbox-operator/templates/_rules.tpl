{{- /* The rights that the operator needs for OutboxRelays. It has none on Secrets: relays and
migrations get them as mounted files. */ -}}
{{- define "outbox-operator.rules" -}}
# The manifests of users.
- apiGroups: [outboxrelay.dev]
  resources: [outboxrelays]
  verbs: [get, list, watch]
# Their status.
- apiGroups: [outboxrelay.dev]
  resources: [outboxrelays/status]
  verbs: [patch]
# Relays.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
# The number of relays.
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
# Shows which settings are still mounted, and which Deployment a pod belongs to.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list]
# Migrations: a failed one is deleted before the next attempt.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
# Settings of relays, in immutable ConfigMaps. Each is deleted when no pod mounts it any more.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, create, delete]
# Services in front of relay pods.
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, patch]
# An account without rights, as which relay pods run. It is deleted when
# template.serviceAccountName of a manifest sets another one.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create, patch, delete]
# Budgets that let at most one relay at a time be evicted.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch]
# Restricts who may reach relays, if networkPolicy.enabled of a manifest is true.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch, delete]
# Lets Prometheus find relays, if monitoring.podMonitor of a manifest is true.
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, create, patch, delete]
# Pods have the results of migrations and the addresses of relays.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Events report why a Job cannot create a pod.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# Events that `kubectl describe outboxrelay` shows.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
