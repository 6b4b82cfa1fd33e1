{{- /* sallyport.refuse: what would not work, or would do something else than it says, is
refused here, with the key that is to be changed. */ -}}
{{- define "sallyport.refuse" -}}
{{- $facts := include "sallyport.facts" . | fromYaml -}}
{{- $c := .Values.config | default dict -}}
{{- if not $c -}}
{{- fail "config: is empty. It is the configuration of Sallyport, as in docs/guide.md; `sallyport check` judges it" -}}
{{- end -}}
{{- include "sallyport.words" (list $c "config") -}}
{{- include "sallyport.refuseListeners" (list . $facts) -}}
{{- include "sallyport.refuseReplicas" (list . $facts) -}}
{{- if .Values.checkReferences }}{{ include "sallyport.references" (list $c "config" (include "sallyport.mounted" . | fromJsonArray) .) }}{{ end -}}
{{- range $what := list "httpRoute" "ingress" -}}
{{- $v := index $.Values $what -}}
{{- if and $v.enabled (not $v.hostnames) (not $facts.hosts) -}}
{{- fail (printf "%s.hostnames: is required, because config.public_url stands elsewhere and no route names a host" $what) -}}
{{- end -}}
{{- end -}}
{{- if eq .Values.mode "sidecar" -}}
{{- range $what := list "httpRoute" "ingress" "autoscaling" "persistence" "networkPolicy" -}}
{{- if (index $.Values $what).enabled -}}
{{- fail (printf "%s.enabled: has no meaning with `mode: sidecar`: it is for the chart of the app" $what) -}}
{{- end -}}
{{- end -}}
{{- if .Values.podSecurityContext -}}
{{- fail "podSecurityContext: has no meaning with `mode: sidecar`: the pod is the app's" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: is required: the Gateway that is to serve the route" -}}
{{- end -}}
{{- range $what := list "commonLabels" "podLabels" -}}
{{- range $key, $_ := index $.Values $what -}}
{{- if has $key (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component") -}}
{{- fail (printf "%s: the label %s is the chart's, by which the pods are found" $what $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.prometheusRule.enabled (not .Values.metrics.serviceMonitor.enabled) -}}
{{- fail "metrics.prometheusRule.enabled: its alerts are about what metrics.serviceMonitor.enabled has scraped, by the name of its job; without that none of them would ever come" -}}
{{- end -}}
{{- if .Values.httpRoute.backendTLS.enabled -}}
{{- if not .Values.httpRoute.enabled -}}
{{- fail "httpRoute.backendTLS.enabled: has no meaning without httpRoute.enabled" -}}
{{- end -}}
{{- if not (include "sallyport.tlsPorts" . | fromYaml) -}}
{{- fail "httpRoute.backendTLS.enabled: the gateway would speak TLS to a port without: config.listen.https is off, and no questions of httpRoute.externalAuth go to a config.listen.external_auth with a cert" -}}
{{- end -}}
{{- end -}}
{{- if .Values.httpRoute.externalAuth.by -}}
{{- if or (not $facts.calls.port) $facts.calls.local -}}
{{- fail "httpRoute.externalAuth.by: the gateway asks over gRPC, and config.listen.external_auth.grpc is off or on loopback: write `grpc: \":4183\"` there" -}}
{{- end -}}
{{- if not .Values.httpRoute.externalAuth.backendRefs -}}
{{- fail "httpRoute.externalAuth.backendRefs: is required: the app's Service" -}}
{{- end -}}
{{- if .Values.httpRoute.paths -}}
{{- fail "httpRoute.paths: has no meaning with externalAuth: config.prefix leads to Sallyport, and the rest to the app" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- /* sallyport.words: Helm has made true and false of the words y, yes, on, n, no and off,
in keys too. */ -}}
{{- define "sallyport.words" -}}
{{- $at := index . 1 -}}
{{- $v := index . 0 -}}
{{- if kindIs "map" $v -}}
{{- range $key, $below := $v -}}
{{- if has $key (list "true" "false") -}}
{{- fail (printf "%s: has the key %q. Helm reads YAML 1.1, in which y, yes, on, n, no and off are truth values: put the key in quotes" $at $key) -}}
{{- end -}}
{{- include "sallyport.words" (list $below (printf "%s.%s" $at $key)) -}}
{{- end -}}
{{- else if kindIs "slice" $v -}}
{{- range $i, $below := $v }}{{ include "sallyport.words" (list $below (printf "%s[%d]" $at $i)) }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "sallyport.refuseListeners" -}}
{{- $top := index . 0 -}}
{{- $facts := index . 1 -}}
{{- $key := ternary "https" "http" (eq $facts.public.scheme "https") -}}
{{- if $facts.public.local -}}
{{- fail (printf "config.listen.%s: is on loopback, which no other pod reaches; write :%s" $key $facts.public.port) -}}
{{- end -}}
{{- range $name, $at := dict "public" (printf "listen.%s" $key) "admin" "listen.admin" "asked" "listen.external_auth" "calls" "listen.external_auth.grpc" "lent" "listen.grants" -}}
{{- $port := (index $facts $name).port -}}
{{- if and $port (lt (int $port) 1024) -}}
{{- fail (printf "config.%s: port %s is for root only; choose one above 1023: the Service has its own ports (service.port)" $at $port) -}}
{{- end -}}
{{- end -}}
{{- if or (not $facts.admin.port) $facts.admin.local -}}
{{- range $probe := list "livenessProbe" "readinessProbe" "startupProbe" -}}
{{- if (index $top.Values $probe).httpGet -}}
{{- fail (printf "%s.httpGet: the kubelet asks from outside of the pod, which config.listen.admin does not answer: write `admin: \":4181\"` there, or leave httpGet out; then the container asks itself" $probe) -}}
{{- end -}}
{{- end -}}
{{- if $top.Values.metrics.serviceMonitor.enabled -}}
{{- fail "metrics.serviceMonitor.enabled: Prometheus cannot reach config.listen.admin, which is on loopback or off: write `admin: \":4181\"` there" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sallyport.refuseReplicas" -}}
{{- $top := index . 0 -}}
{{- $facts := index . 1 -}}
{{- $c := $top.Values.config -}}
{{- $key := ternary "autoscaling.maxReplicas" "replicas" $top.Values.autoscaling.enabled -}}
{{- if gt (int $facts.replicas) 1 -}}
{{- if eq $facts.store "sqlite" -}}
{{- fail (printf "%s: several pods cannot share config.store, a database in SQLite, which is for one machine: take PostgreSQL, or one replica" $key) -}}
{{- end -}}
{{- if eq $facts.store "none" -}}
{{- if $c.grants -}}
{{- fail (printf "%s: config.grants needs a config.store that all pods share" $key) -}}
{{- end -}}
{{- range $c.providers -}}
{{- if eq (toString (.backchannel_logout | default "")) "auto" -}}
{{- fail (printf "%s: the back-channel logout of provider %s reaches one pod; it needs a config.store that all pods share" $key .id) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $top.Values.persistence.enabled (not (has "ReadWriteMany" $top.Values.persistence.accessModes)) -}}
{{- fail (printf "%s: several pods cannot mount persistence, whose accessModes have no ReadWriteMany" $key) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $facts.store "sqlite") ($top.Values.strategy.type) (ne ($top.Values.strategy.type | default "") "Recreate") -}}
{{- fail "strategy.type: must be Recreate with a config.store in SQLite: two pods on two machines must not have it open" -}}
{{- end -}}
{{- $hpa := $top.Values.autoscaling -}}
{{- if and $hpa.enabled (not $hpa.metrics) (not (($top.Values.resources.requests | default dict).cpu)) -}}
{{- fail "autoscaling.metrics: is required, because resources.requests has no cpu of which 80% could be taken" -}}
{{- end -}}
{{- end }}

{{- /* sallyport.mounted: the folders that the pod mounts, as JSON. */ -}}
{{- define "sallyport.mounted" -}}
{{- $paths := list "/etc/ssl/certs/" -}}
{{- range $name, $_ := .Values.secrets }}{{ $paths = append $paths (printf "/run/secrets/%s/" $name) }}{{ end -}}
{{- range $name, $_ := .Values.configMaps }}{{ $paths = append $paths (printf "/run/config/%s/" $name) }}{{ end -}}
{{- if .Values.persistence.enabled }}{{ $paths = append $paths "/var/lib/sallyport/" }}{{ end -}}
{{- range .Values.extraVolumeMounts }}{{ $paths = append $paths (printf "%s/" (trimSuffix "/" .mountPath)) }}{{ end -}}
{{- toJson $paths -}}
{{- end }}

{{- /* sallyport.references: each file:, dir: and sqlite: must lead to what is mounted, and each
env: to a variable that is set. Ids of organizations and people have the same form. */ -}}
{{- define "sallyport.references" -}}
{{- $v := index . 0 -}}
{{- $at := index . 1 -}}
{{- $mounted := index . 2 -}}
{{- $top := index . 3 -}}
{{- if kindIs "map" $v -}}
{{- range $key, $below := $v -}}
{{- if not (has $key (list "orgs" "org_ids" "subjects" "groups")) -}}
{{- include "sallyport.references" (list $below (printf "%s.%s" $at $key) $mounted $top) -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" $v -}}
{{- range $i, $below := $v }}{{ include "sallyport.references" (list $below (printf "%s[%d]" $at $i) $mounted $top) }}{{ end -}}
{{- else if kindIs "string" $v -}}
{{- if regexMatch "^(file|dir|sqlite):/" $v -}}
{{- $path := printf "%s/" (trimSuffix "/" (regexReplaceAll "^[a-z]+:" $v "")) -}}
{{- $found := false -}}
{{- range $mounted }}{{ if hasPrefix . $path }}{{ $found = true }}{{ end }}{{ end -}}
{{- if not $found -}}
{{- fail (printf "%s: nothing is mounted at %s. `secrets` mounts a Secret at /run/secrets/NAME, `configMaps` a ConfigMap at /run/config/NAME, `persistence` a volume at /var/lib/sallyport; for what a webhook mounts, set checkReferences: false" $at $v) -}}
{{- end -}}
{{- else if and (regexMatch "^env:[A-Za-z_][A-Za-z0-9_]*$" $v) (not $top.Values.envFrom) -}}
{{- $name := trimPrefix "env:" $v -}}
{{- $found := false -}}
{{- range $top.Values.env }}{{ if eq .name $name }}{{ $found = true }}{{ end }}{{ end -}}
{{- if not $found -}}
{{- fail (printf "%s: no variable %s is set: name it in `env`, or the Secret that has it in `envFrom`" $at $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
