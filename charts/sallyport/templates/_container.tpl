{{- /* sallyport.podSecurityContext: that of the Deployment. Files of the mode 0440 are read by
the group, which the fsGroup is. */ -}}
{{- define "sallyport.podSecurityContext" -}}
{{- $pod := dict "fsGroup" 65532 "fsGroupChangePolicy" "OnRootMismatch" "runAsNonRoot" true "runAsUser" 65532 "runAsGroup" 65532 "seccompProfile" (dict "type" "RuntimeDefault") }}
{{- toYaml (mergeOverwrite $pod (deepCopy .Values.podSecurityContext)) }}
{{- end }}

{{- /* sallyport.container: that of the Deployment, and for `mode: sidecar` one to be among
the initContainers of an app's pod. */ -}}
{{- define "sallyport.container" -}}
{{- $facts := include "sallyport.facts" . | fromYaml -}}
- name: sallyport
  image: {{ include "sallyport.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args: [serve]
  {{- if eq .Values.mode "sidecar" }}
  restartPolicy: Always
  {{- end }}
  {{- $env := .Values.env | default list }}
  {{- $named := list }}
  {{- range $env }}{{ $named = append $named .name }}{{ end }}
  {{- $memory := (.Values.resources.limits | default dict).memory }}
  {{- if and $memory (not (has "GOMEMLIMIT" $named)) }}
  {{- $env = append $env (dict "name" "GOMEMLIMIT" "value" (include "sallyport.memory" $memory)) }}
  {{- end }}
  {{- with $env }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    # In a pod of others the names are theirs, too.
    - {name: {{ ternary "sallyport" $facts.public.scheme (eq .Values.mode "sidecar") }}, containerPort: {{ $facts.public.port }}, protocol: TCP}
    {{- if and $facts.admin.port (not $facts.admin.local) }}
    - {name: {{ include "sallyport.adminPort" . }}, containerPort: {{ $facts.admin.port }}, protocol: TCP}
    {{- end }}
    {{- if and $facts.asked.port (not $facts.asked.local) }}
    - {name: ext-auth, containerPort: {{ $facts.asked.port }}, protocol: TCP}
    {{- end }}
    {{- if and $facts.calls.port (not $facts.calls.local) }}
    - {name: ext-auth-grpc, containerPort: {{ $facts.calls.port }}, protocol: TCP}
    {{- end }}
    {{- if and $facts.lent.port (not $facts.lent.local) }}
    - {name: grants, containerPort: {{ $facts.lent.port }}, protocol: TCP}
    {{- end }}
  startupProbe:
    {{- include "sallyport.probe" (list . $facts .Values.startupProbe "/healthz" (dict "periodSeconds" 2 "failureThreshold" 30 "timeoutSeconds" 4)) | nindent 4 }}
  livenessProbe:
    {{- include "sallyport.probe" (list . $facts .Values.livenessProbe "/healthz" (dict "periodSeconds" 10 "failureThreshold" 3 "timeoutSeconds" 4)) | nindent 4 }}
  readinessProbe:
    {{- include "sallyport.probe" (list . $facts .Values.readinessProbe "/readyz" (dict "periodSeconds" 5 "failureThreshold" 2 "timeoutSeconds" 4)) | nindent 4 }}
  {{- with .Values.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- /* In a pod of others the files have root's group, unless that pod has an fsGroup, of which Sallyport
    is then too. An fsGroup of ours would be that of the app's volumes. */}}
    {{- $group := ternary 0 65532 (eq .Values.mode "sidecar") }}
    {{- $container := dict "runAsUser" 65532 "runAsGroup" $group "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "runAsNonRoot" true "capabilities" (dict "drop" (list "ALL")) "seccompProfile" (dict "type" "RuntimeDefault") }}
    {{- toYaml (mergeOverwrite $container (deepCopy .Values.securityContext)) | nindent 4 }}
  # Whole folders: the kubelet never brings a change to a subPath.
  volumeMounts:
    - {name: sallyport-config, mountPath: /etc/sallyport, readOnly: true}
    {{- range $name, $_ := .Values.secrets }}
    - {name: sallyport-secret-{{ $name }}, mountPath: /run/secrets/{{ $name }}, readOnly: true}
    {{- end }}
    {{- range $name, $_ := .Values.configMaps }}
    - {name: sallyport-config-{{ $name }}, mountPath: /run/config/{{ $name }}, readOnly: true}
    {{- end }}
    {{- if .Values.persistence.enabled }}
    - {name: sallyport-data, mountPath: /var/lib/sallyport}
    {{- end }}
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{- /* sallyport.volumes: what the container mounts. */ -}}
{{- define "sallyport.volumes" -}}
- name: sallyport-config
  configMap:
    name: {{ include "sallyport.fullname" . }}
    defaultMode: 0440
{{- range $name, $secret := .Values.secrets }}
- name: sallyport-secret-{{ $name }}
  secret:
    secretName: {{ $secret.secretName | quote }}
    defaultMode: 0440
    {{- with $secret.items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if $secret.optional }}
    optional: true
    {{- end }}
{{- end }}
{{- range $name, $map := .Values.configMaps }}
- name: sallyport-config-{{ $name }}
  configMap:
    name: {{ $map.configMapName | quote }}
    defaultMode: 0440
    {{- with $map.items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- if .Values.persistence.enabled }}
- name: sallyport-data
  persistentVolumeClaim:
    claimName: {{ default (include "sallyport.fullname" .) .Values.persistence.existingClaim }}
{{- end }}
{{- with .Values.extraVolumes }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- /* sallyport.sidecar and sallyport.sidecarVolumes are for other charts. They take the
context of this chart: `include "sallyport.sidecar" .Subcharts.sallyport`. */ -}}
{{- define "sallyport.sidecar" -}}
{{- if ne .Values.mode "sidecar" }}{{ fail "sallyport.mode: must be sidecar, or this chart brings a Deployment of its own too" }}{{ end -}}
{{- include "sallyport.container" . -}}
{{- end }}

{{- define "sallyport.sidecarVolumes" -}}
{{- include "sallyport.volumes" . -}}
{{- end }}

{{- /* sallyport.adminPort: its name. */ -}}
{{- define "sallyport.adminPort" -}}
{{- ternary "sallyport-admin" "admin" (eq .Values.mode "sidecar") }}
{{- end }}
