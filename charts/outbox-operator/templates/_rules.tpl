{{- /* Exactly what the operator does with OutboxRelays, and no right on Secrets: relays and migrations get theirs as mounted files. */ -}}
{{- define "outbox-operator.rules" -}}
# What users wish for.
- apiGroups: [outboxrelay.dev]
  resources: [outboxrelays]
  verbs: [get, list, watch]
# What became of it.
- apiGroups: [outboxrelay.dev]
  resources: [outboxrelays/status]
  verbs: [patch]
# The relays.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
# Their number.
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
# Which settings are still mounted, and whose pod is whose.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list]
# Migrations: a failed one is deleted before the next attempt.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
# Settings, one immutable ConfigMap each; they are listed by name, and deleted when no pod mounts them any more.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, create, delete]
# Names for relay pods.
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, patch]
# An account without rights for relay pods to run as; deleted when template.serviceAccountName names another.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create, patch, delete]
# At most one relay at a time is evicted.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch]
# Who may reach the relays, where networkPolicy.enabled says so.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch, delete]
# How metrics are found, where monitoring.podMonitor says so.
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, create, patch, delete]
# Results of migrations, addresses of relays.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Why a Job can create no pod.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# What `kubectl describe outboxrelay` tells.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
