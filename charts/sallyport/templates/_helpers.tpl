{{- define "sallyport.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "sallyport.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "sallyport.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "sallyport.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* sallyport.selectorLabels: those by which pods are found. No value changes them, since the
selector of a Deployment is immutable: nameOverride, below a fullnameOverride, must not either. */ -}}
{{- define "sallyport.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: proxy
{{- end }}

{{- /* sallyport.labels: those of every object. A list of the context and the component. */ -}}
{{- define "sallyport.labels" -}}
{{- $top := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $top.Chart.Name $top.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "sallyport.name" $top }}
app.kubernetes.io/instance: {{ $top.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/version: {{ $top.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $top.Release.Service }}
{{- with $top.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sallyport.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default (printf "v%s" .Chart.AppVersion) .Values.image.tag }}
{{- end }}
{{- end }}

{{- /* sallyport.address: that of a listener, which is a text or a mapping; "" if it is off. */ -}}
{{- define "sallyport.address" -}}
{{- if kindIs "map" . }}{{ .address }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- define "sallyport.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}

{{- /* sallyport.local: "yes" if the address is reached from the pod only. */ -}}
{{- define "sallyport.local" -}}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\])" . }}yes{{ end }}
{{- end }}

{{- /* sallyport.facts: what the objects need to know of the configuration, as YAML. */ -}}
{{- define "sallyport.facts" -}}
{{- $c := .Values.config | default dict -}}
{{- $listen := $c.listen | default dict -}}
{{- $public := include "sallyport.address" ($listen.http | default ":4180") -}}
{{- $scheme := "http" -}}
{{- $proxied := false -}}
{{- if $listen.https -}}
{{- $public = include "sallyport.address" $listen.https -}}
{{- $scheme = "https" -}}
{{- $proxied = gt (len ($listen.https.proxy_protocol | default list)) 0 -}}
{{- else if kindIs "map" $listen.http -}}
{{- $proxied = gt (len ($listen.http.proxy_protocol | default list)) 0 -}}
{{- end -}}
{{- $admin := "127.0.0.1:4181" -}}
{{- if hasKey $listen "admin" }}{{ $admin = include "sallyport.address" $listen.admin }}{{ end -}}
{{- $asked := include "sallyport.address" ($listen.external_auth | default "") -}}
{{- $calls := "" -}}
{{- $askedTLS := false -}}
{{- if kindIs "map" $listen.external_auth -}}
{{- $calls = $listen.external_auth.grpc | default "" -}}
{{- $askedTLS = hasKey $listen.external_auth "cert" -}}
{{- end -}}
{{- $lent := include "sallyport.address" ($listen.grants | default "") -}}
{{- $store := "none" -}}
{{- if $c.store -}}
{{- $url := $c.store -}}
{{- if kindIs "map" $url }}{{ $url = $c.store.url | default "" }}{{ end -}}
{{- $store = "unseen" -}}
{{- if hasPrefix "sqlite:" $url }}{{ $store = "sqlite" }}{{ else if hasPrefix "postgres" $url }}{{ $store = "postgres" }}{{ end -}}
{{- end -}}
{{- $replicas := int .Values.replicas -}}
{{- if .Values.autoscaling.enabled }}{{ $replicas = max (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas) }}{{ end -}}
{{- $hosts := list -}}
{{- if hasPrefix "http" ($c.public_url | default "") }}{{ $hosts = append $hosts (regexReplaceAll ":[0-9]+$" (urlParse $c.public_url).host "") }}{{ end -}}
{{- range $c.routes -}}
{{- if .host }}{{ $hosts = append $hosts .host }}{{ end -}}
{{- end -}}
{{- $all := list -}}
{{- range $hosts -}}
{{- if hasPrefix "{org}." . -}}
{{- $below := trimPrefix "{org}" . -}}
{{- range $c.organizations }}{{ $all = append $all (printf "%s%s" .id $below) }}{{ end -}}
{{- else }}{{ $all = append $all . }}{{ end -}}
{{- end -}}
public: {{ toJson (dict "port" (include "sallyport.port" $public) "local" (include "sallyport.local" $public) "scheme" $scheme "proxied" $proxied "h2c" (eq (toString $listen.h2c) "true")) }}
admin: {{ toJson (dict "port" (include "sallyport.port" $admin) "local" (include "sallyport.local" $admin) "address" $admin) }}
asked: {{ toJson (dict "port" (include "sallyport.port" $asked) "local" (include "sallyport.local" $asked) "tls" $askedTLS) }}
calls: {{ toJson (dict "port" (include "sallyport.port" $calls) "local" (include "sallyport.local" $calls) "tls" $askedTLS) }}
lent: {{ toJson (dict "port" (include "sallyport.port" $lent) "local" (include "sallyport.local" $lent)) }}
store: {{ $store }}
replicas: {{ $replicas }}
hosts: {{ $all | uniq | toJson }}
prefix: {{ $c.prefix | default "/.sallyport" | toJson }}
{{- end }}

{{- /* sallyport.seconds: a duration of the configuration, such as 1m30s, in whole seconds, rounded up. */ -}}
{{- define "sallyport.seconds" -}}
{{- $ms := 0.0 -}}
{{- $unit := dict "ms" 1.0 "s" 1000.0 "m" 60000.0 "h" 3600000.0 -}}
{{- range regexFindAll "[0-9.]+(ms|s|m|h)" . -1 -}}
{{- $ms = addf $ms (mulf (float64 (regexFind "^[0-9.]+" .)) (get $unit (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- ceil (divf $ms 1000.0) -}}
{{- end }}

{{- /* sallyport.memory: nine tenths of a quantity of Kubernetes, in bytes. */ -}}
{{- define "sallyport.memory" -}}
{{- $text := toString . -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- if not (and (hasKey $units $unit) (regexMatch "^[0-9.]+[A-Za-z]*$" $text)) -}}
{{- fail (printf "resources.limits.memory: %s is not understood here: write it with Ki, Mi or Gi, or set GOMEMLIMIT in env" $text) -}}
{{- end -}}
{{- mulf (float64 (regexFind "^[0-9.]+" $text)) (get $units $unit | default 1.0) 0.9 | int64 -}}
{{- end }}

{{- /* sallyport.replicas: more than one, with or without autoscaling? "yes" or "". */ -}}
{{- define "sallyport.several" -}}
{{- if gt (int (include "sallyport.facts" . | fromYaml).replicas) 1 }}yes{{ end }}
{{- end }}

{{- /* sallyport.probe: one of the container's. A list: the context, facts, what the values add, the
admin listener's path, the defaults. An httpGet of the values needs an admin listener that
the kubelet reaches, which asks from outside of the pod. */ -}}
{{- define "sallyport.probe" -}}
{{- $facts := index . 1 -}}
{{- $own := index . 2 | default dict -}}
{{- $path := index . 3 -}}
{{- $probe := deepCopy (index . 4) -}}
{{- $admin := $facts.admin -}}
{{- $given := or $own.httpGet $own.tcpSocket $own.exec $own.grpc -}}
{{- if not $given -}}
{{- if and $admin.port (not $admin.local) -}}
{{- $_ := set $probe "httpGet" (dict "path" $path "port" (include "sallyport.adminPort" (index . 0))) -}}
{{- else if $admin.port -}}
{{- $_ := set $probe "exec" (dict "command" (list "/sallyport" "healthcheck" "--url" (printf "http://%s%s" $admin.address $path))) -}}
{{- else -}}
{{- $command := list "/sallyport" "healthcheck" -}}
{{- if eq $path "/healthz" }}{{ $command = append $command "--live" }}{{ end -}}
{{- $_ := set $probe "exec" (dict "command" $command) -}}
{{- end -}}
{{- end -}}
{{- toYaml (mergeOverwrite $probe (deepCopy $own)) -}}
{{- end }}

{{- /* sallyport.servicePort: where the Service has the public listener. */ -}}
{{- define "sallyport.servicePort" -}}
{{- if .Values.service.port }}{{ .Values.service.port }}{{ else if ((.Values.config | default dict).listen | default dict).https }}443{{ else }}80{{ end }}
{{- end }}

{{- /* sallyport.tlsPorts: the ports of the Service at which a gateway has to speak TLS, by the
end of the name that their BackendTLSPolicy has. */ -}}
{{- define "sallyport.tlsPorts" -}}
{{- $facts := include "sallyport.facts" . | fromYaml -}}
{{- $ports := dict -}}
{{- if eq $facts.public.scheme "https" }}{{ $_ := set $ports "https" "https" }}{{ end -}}
{{- if and .Values.httpRoute.externalAuth.by $facts.calls.tls }}{{ $_ := set $ports "ext-auth" "ext-auth-grpc" }}{{ end -}}
{{- toYaml $ports -}}
{{- end }}
