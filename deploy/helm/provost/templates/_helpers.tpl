{{/* What all kinds of nodes have in common. `.kind` is control-plane, data-plane or gpu-node, `.values` its part of the values. */}}

{{- define "provost.fullname" -}}
{{- if contains "provost" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-provost" (.Release.Name | trunc 32 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "provost.selector" -}}
app.kubernetes.io/name: provost
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "provost.labels" -}}
{{ include "provost.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Where nodes find the control plane: stable names of its pods. */}}
{{- define "provost.controlPlane" -}}
{{- $name := include "provost.fullname" . -}}
{{- $nodes := list -}}
{{- range $number := until (int .Values.controlPlane.replicas) -}}
{{- $nodes = append $nodes (printf "%s-control-%d.%s-nodes.%s.svc:8423" $name $number $name $.Release.Namespace) -}}
{{- end -}}
{{- join "," $nodes -}}
{{- end -}}

{{- define "provost.podSpec" -}}
{{- $root := .root -}}
{{- $name := include "provost.fullname" $root -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
# Nothing here speaks to Kubernetes.
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
terminationGracePeriodSeconds: {{ .grace }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "provost.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ .kind }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
initContainers:
  # Waits until this node belongs to a cluster: made on it, or with a token that was put here (docs/packages.md). The
  # wrapping key is copied, because a mounted Secret can be read by the pod's group, and such a key is refused. GPU
  # nodes open no secret, and have no key.
  - name: prepare
    {{- include "provost.container" . | nindent 4 }}
    command:
      - sh
      - -ec
      - |
        umask 077
        {{- if ne .kind "gpu-node" }}
        cp /keys/secrets.key /run/provost/secrets.key
        chmod 600 /run/provost/secrets.key
        {{- end }}
        until [ -e /var/lib/provost/ca.pem ] || [ -s /var/lib/provost/join-token ]; do
          echo "$PROVOST_NODE belongs to no cluster yet: the release's notes say what to do"
          sleep 5
        done
containers:
  - name: provost
    {{- include "provost.container" . | nindent 4 }}
    command: [provost, server, --config, /etc/provost/provost.toml]
    ports:
      - { name: peer, containerPort: 8423 }
      - { name: metrics, containerPort: 8422 }
      {{- if eq .kind "data-plane" }}
      - { name: http, containerPort: 8420 }
      {{- end }}
    {{- if eq .kind "data-plane" }}
    startupProbe:
      httpGet: { path: /healthz, port: http }
      periodSeconds: 2
      # Joining and the first state may take two minutes each.
      failureThreshold: 150
    readinessProbe:
      httpGet: { path: /readyz, port: http }
      periodSeconds: 2
      failureThreshold: 1
    livenessProbe:
      httpGet: { path: /healthz, port: http }
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    {{- else }}
    # Whether the others are there is no reason to end one: only they together are a majority. So what decides about its end
    # asks /healthz, which needs nobody else. Ready is one that knows who leads its groups and has caught up: it hides nothing,
    # since nodes find each other ready or not (services.yaml), and an upgrade goes on to the next pod only when the one
    # before is back.
    startupProbe:
      httpGet: { path: /healthz, port: metrics }
      periodSeconds: 2
      failureThreshold: 150
    readinessProbe:
      httpGet: { path: /readyz, port: metrics }
      periodSeconds: 5
      timeoutSeconds: 4
    livenessProbe:
      httpGet: { path: /healthz, port: metrics }
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    {{- end }}
    resources:
      {{- toYaml .values.resources | nindent 6 }}
volumes:
  - name: config
    configMap:
      name: {{ $name }}-{{ .short }}
  {{- if ne .kind "gpu-node" }}
  - name: keys
    secret:
      secretName: {{ $root.Values.keys.existingSecret }}
      items: [{ key: secrets.key, path: secrets.key }]
  - name: run
    emptyDir: { medium: Memory, sizeLimit: 1Mi }
  {{- end }}
  {{- with .values.modelsClaim }}
  - name: models
    persistentVolumeClaim: { claimName: {{ . }}, readOnly: true }
  {{- end }}
  - name: tmp
    emptyDir: { sizeLimit: 1Gi }
{{- end -}}

{{/* What the two containers of a pod share. */}}
{{- define "provost.container" -}}
{{- $root := .root -}}
{{- $name := include "provost.fullname" $root -}}
image: "{{ $root.Values.image.repository }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}"
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
env:
  - name: PROVOST_NODE
    valueFrom: { fieldRef: { fieldPath: metadata.name } }
  - name: PROVOST_ADVERTISE
    value: "$(PROVOST_NODE).{{ $name }}-nodes.{{ $root.Release.Namespace }}.svc:8423"
  - name: PROVOST_CONTROL_PLANE
    value: {{ include "provost.controlPlane" $root | quote }}
  - name: PROVOST_LOG
    value: {{ $root.Values.log | quote }}
volumeMounts:
  - { name: data, mountPath: /var/lib/provost }
  - { name: config, mountPath: /etc/provost, readOnly: true }
  {{- if ne .kind "gpu-node" }}
  - { name: keys, mountPath: /keys, readOnly: true }
  - { name: run, mountPath: /run/provost }
  {{- end }}
  {{- if .values.modelsClaim }}
  - { name: models, mountPath: /srv/models, readOnly: true }
  {{- end }}
  - { name: tmp, mountPath: /tmp }
{{- end -}}
