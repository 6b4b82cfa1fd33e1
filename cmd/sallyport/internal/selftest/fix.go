package selftest

import "strings"

// lines are what to add to the configuration, for each front in the order of fronts.
type lines []string

// fronts are those that have a guide, and Sallyport where it is the proxy itself.
var fronts = [...]string{"nginx", "Caddy", "HAProxy", "Traefik", "Envoy", "Sallyport"}

const (
	luaLine     = "http-request lua.sallyport URL, before any use_backend"
	traefikAuth = "forwardAuth of the middleware: "
	envoyAuth   = "ext_authz: "
)

var (
	fixRoutes = lines{"the printed routes in Sallyport, and `map` + `proxy_pass http://$app` to the echo",
		"the printed routes in Sallyport, and a `reverse_proxy` of the same route to the echo",
		"the printed routes in Sallyport, and a `use_backend` to the echo",
		"the printed routes in Sallyport, and a router with the same middlewares to the echo",
		"the printed routes in Sallyport, and a route of the same virtual host to the echo",
		"the printed routes"}
	fixCheck = lines{"auth_request /_sallyport;", "forward_auth SALLYPORT { uri /forward? }", luaLine,
		"middlewares: [sallyport] on the router", "http_filters: envoy.filters.http.ext_authz, before the router",
		"allow: on the route"}
	fixSignIn = lines{"error_page 401 = @signin; location @signin { if ($asker = navigation) { return 302 $signin; } }",
		"forward_auth passes the 302 on: no handle_errors for it", luaLine,
		"forwardAuth passes the 302 on: no errors middleware for it",
		envoyAuth + "allowed_client_headers: location", "allow: on the route"}
	fixProgram = lines{"location @signin { if ($asker = navigation) { return 302 $signin; } return 401; }",
		"forward_auth passes the 401 on: no handle_errors for it",
		luaLine, "forwardAuth passes the 401 on: no errors middleware for it",
		envoyAuth + "allowed_headers: accept, sec-fetch-*", "allow: on the route"}
	fixOwn = lines{"location /.sallyport/ { proxy_pass http://127.0.0.1:4180; }",
		"handle /.sallyport/* { reverse_proxy 127.0.0.1:4180 }", "use_backend sallyport if { path_beg /.sallyport/ }",
		"a router for PathPrefix(`/.sallyport/`) without the middleware",
		"a route for /.sallyport/ with ext_authz disabled", "public_url has the host that was asked"}
	fixQuestion = lines{"internal; in location = /_sallyport", "no route to listen.external_auth",
		"no backend for listen.external_auth", "no router to listen.external_auth",
		"no route to the cluster of listen.external_auth", "no route to listen.external_auth"}
	fixPath = lines{"proxy_set_header X-Original-URL $scheme://$http_host$request_uri; and a proxy_pass without a path",
		"forward_auth with `uri /forward?`, and no rewrite before it", "pathq in the question, and no normalize-uri",
		"no path middleware before forwardAuth",
		"path_with_escaped_slashes_action: KEEP_UNCHANGED, normalize_path: true",
		"encoded: reject on the route"}
	fixUpgrade = lines{"proxy_set_header Upgrade $http_upgrade; in location = /_sallyport",
		"forward_auth passes all headers on: no header_up that removes Upgrade, Origin or Sec-WebSocket-*", luaLine,
		"a router for HeaderRegexp(`Upgrade`, `(?i)websocket`), with customRequestHeaders: " +
			"{Sec-WebSocket-Version: \"13\"} before forwardAuth; no authRequestHeaders",
		envoyAuth + "allowed_headers: upgrade, origin, sec-websocket-*", "websocket: true on the route"}
	fixProtocol = lines{"map $http_upgrade $connection_upgrade { default \"\"; ~*^websocket$ upgrade; }; and " +
		"proxy_set_header Upgrade $http_upgrade; in location = /_sallyport",
		"forward_auth passes all headers on: no header_up that removes Upgrade", luaLine,
		"customRequestHeaders: {Upgrade: \"\"} before forwardAuth, and {Upgrade: websocket} in the router for " +
			"WebSockets",
		"upgrade_configs: none but websocket", "nothing: please report this"}
	fixWebSocket = lines{"proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; " +
		"proxy_set_header Connection $connection_upgrade;", "no header_up for Upgrade or Connection",
		"no `http-request del-header` for Upgrade or Connection", "no headers middleware for Upgrade or Connection",
		"upgrade_configs: [{upgrade_type: websocket}]", "websocket: true on the route"}
	fixCookie = lines{"auth_request_set $cookies $upstream_http_cookie; proxy_set_header Cookie $cookies;",
		"copy_headers Cookie", luaLine, traefikAuth + "authResponseHeaders: [Cookie]",
		envoyAuth + "allowed_upstream_headers: cookie", "nothing: please report this"}
	fixHost = lines{"proxy_set_header Host $http_host;", "header_up Host {http.request.hostport}",
		"no `http-request set-header Host`", "passHostHeader: true", "no host_rewrite", "no upstream.host on the route"}
	fixBuffers = lines{"large_client_header_buffers 4 32k; proxy_buffer_size 32k; proxy_buffers 8 32k; " +
		"proxy_busy_buffers_size 64k;", "max_header_size", "tune.bufsize 65536", "nothing is known",
		"max_request_headers_kb: 96", "limits.header"}
	fixCORS = lines{"no add_header Access-Control-Allow-Origin $http_origin",
		"no header Access-Control-Allow-Origin {header.Origin}",
		"no `http-response set-header Access-Control-Allow-Origin %[…]` for every origin",
		"accessControlAllowOriginList: the sites by name", "cors: allow_origin_string_match: the sites by name",
		"cors: origins on the route"}
)

// either is for what one of two lines may help.
func either(one, other lines) lines {
	both := make(lines, len(one))
	for i := range one {
		both[i] = one[i] + ", or " + other[i]
	}
	return both
}

// variable is a name for a header's value in nginx.
func variable(name string) string { return strings.ToLower(strings.ReplaceAll(name, "-", "_")) }

// fixIdentity is for a header that says who somebody is.
func fixIdentity(name string) lines {
	v := variable(name)
	return lines{"auth_request_set $" + v + " $upstream_http_" + v + "; proxy_set_header " + name + " $" + v + ";",
		"copy_headers " + name, luaLine,
		traefikAuth + "authResponseHeaders: [" + name + "]", envoyAuth + "allowed_upstream_headers: " +
			strings.ToLower(name), "nothing: please report this"}
}

// fixNamed is for a header that Connection must not take away.
func fixNamed(name string) lines {
	fix := fixIdentity(name)
	fix[1] = "header_up " + name + " {http.request.header." + name + "} in reverse_proxy"
	return fix
}

// fixAlias is for other spellings of a header.
func fixAlias(name string) lines {
	begin, _, _ := strings.Cut(name, "-")
	return lines{"underscores_in_headers off; (and ignore_invalid_headers on;)",
		"header_up -" + begin + "_* and header_up -" + begin + ".* in reverse_proxy", luaLine,
		"aliasHeadersStrategy: delete under http of the entry point",
		"headers_with_underscores_action: REJECT_REQUEST, and gRPC with encode_raw_headers",
		"nothing: please report this"}
}

// fixSteering is for a header by which a proxy tells an app about the request.
func fixSteering(name string) lines {
	haproxy := luaLine
	value := map[string]string{"X-Forwarded-For": "$remote_addr", "X-Forwarded-Proto": "$scheme",
		"X-Forwarded-Host": "$http_host"}[name]
	if value == "" {
		value = `""`
	} else {
		haproxy = haproxyLine(name)
	}
	return lines{"proxy_set_header " + name + " " + value + ";", "header_up -" + name + " in reverse_proxy", haproxy,
		"forwardedHeaders: without trustedIPs; customRequestHeaders: {" + name + ": \"\"}",
		"request_headers_to_remove: [" + name + "]", "trusted_proxies without this machine"}
}

// haproxyLine is how HAProxy tells of a request.
func haproxyLine(name string) string {
	return "http-request set-header " + name + " " + map[string]string{"X-Forwarded-For": "%[src]",
		"X-Forwarded-Proto": "%[ssl_fc,iif(https,http)]", "X-Forwarded-Host": "%[req.hdr(Host)]"}[name]
}

// fixOverride is for a header that names another method.
func fixOverride(name string) lines {
	fix := fixSteering(name)
	fix[len(fix)-1] = "keep_headers without " + name
	return fix
}

// fixAsked is for a header in which the front asks.
func fixAsked(name string) lines {
	nginx := map[string]string{"X-Original-Method": "$request_method", "X-Forwarded-For": "$remote_addr"}[name]
	haproxy := luaLine
	if name == "X-Forwarded-For" {
		haproxy = haproxyLine(name)
	}
	switch {
	case nginx != "":
		nginx = "proxy_set_header " + name + " " + nginx + ";"
	case name == "X-HTTP-Method-Override":
		nginx = "proxy_set_header X-Original-Method $request_method;"
	default:
		nginx = "proxy_set_header X-Original-URL $scheme://$http_host$request_uri;"
	}
	return lines{nginx + " in location = /_sallyport", "forward_auth writes it: trusted_proxies without this machine",
		haproxy, traefikAuth + "trustForwardHeader: false", envoyAuth + "path_prefix: /envoy, use_remote_address: true",
		"trusted_proxies without this machine"}
}

// fixOwnForwarded is for what the front tells Sallyport's own pages about a request.
func fixOwnForwarded(name string) lines {
	fix := fixSteering(name)
	fix[0] += " in location /.sallyport/"
	fix[1] = "trusted_proxies without this machine"
	return fix
}
