{{/* The service accounts have fixed names: the admission policy names them, and a cluster has one eratrack. */}}
{{- define "eratrack.controller" -}}eratrack-controller{{- end -}}
{{- define "eratrack.agent" -}}eratrack-agent{{- end -}}

{{- define "eratrack.user" -}}
system:serviceaccount:{{ .context.Release.Namespace }}:{{ .account }}
{{- end -}}

{{- define "eratrack.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "eratrack.labels" -}}
app.kubernetes.io/name: eratrack
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* What a selector may hold: it can never change. */}}
{{- define "eratrack.selector" -}}
app.kubernetes.io/name: eratrack
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Where the pods of a component may run, and how important they are. */}}
{{- define "eratrack.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "eratrack.probes" -}}
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 20
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{/* A container that needs nothing of the node. */}}
{{- define "eratrack.unprivileged" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "eratrack.nonroot" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "eratrack.log" -}}
- --log={{ .Values.log.filter }}
- --log-format={{ .Values.log.format }}
{{- end -}}
