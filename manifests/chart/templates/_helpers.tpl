{{- define "spooler.labels" -}}
app.kubernetes.io/name: registry-spooler
{{ include "spooler.commonLabels" . }}
{{- end }}

{{- define "spooler.commonLabels" -}}
app.kubernetes.io/part-of: registry-spooler
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* An image's reference; tag and digest may both be there. Called with the image and the tag by default. */ -}}
{{- define "spooler.image" -}}
{{- $image := index . 0 -}}
{{- $tag := $image.tag | default (index . 1) -}}
{{- $image.repository }}{{ if or $image.tag (not $image.digest) }}:{{ $tag }}{{ end }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "spooler.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* The three probes of a registry, which `/` answers without credentials. Called with further lines of httpGet. */ -}}
{{- define "spooler.registryProbes" -}}
startupProbe:
  httpGet: {{ . }}
  initialDelaySeconds: 2
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {{ . }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {{ . }}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{- define "spooler.check" -}}
{{- if ne .Values.tls.enabled .Values.registry.auth.enabled }}
{{- fail "tls.enabled and registry.auth.enabled go together: set both, or neither" }}
{{- end }}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.enabled) }}
{{- fail "tls.certManager.enabled needs tls.enabled" }}
{{- end }}
{{- end }}
