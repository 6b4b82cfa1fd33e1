package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// slackNo writes a refusal: with status 200, as all of Slack's.
func slackNo(w http.ResponseWriter, code string) {
	_ = writeJSON(w, http.StatusOK, map[string]any{"ok": false, "error": code}) // the client has gone
}

// token redeems a code, or a refresh token.
// https://docs.slack.dev/reference/methods/oauth.v2.access
func (s *SlackWorkspaces) token(w http.ResponseWriter, r *http.Request) {
	form, err := readTokenForm(r)
	if err != nil {
		slackNo(w, "invalid_form_data")
		return
	}
	client, code := s.authenticate(r, form)
	if code != "" {
		slackNo(w, code)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var in *slackInstallation
	var who Person
	switch form.Get("grant_type") {
	case "", "authorization_code":
		in, who, code = s.redeem(client, form)
	case "refresh_token":
		in, code = s.refreshed(client, form.Get("refresh_token"))
	default:
		code = "invalid_grant_type"
	}
	if code != "" {
		slackNo(w, code)
		return
	}
	_ = writeJSON(w, http.StatusOK, s.answer(in, who)) // the client has gone
}

// authenticate checks the secret, in the header or in the body.
func (s *SlackWorkspaces) authenticate(r *http.Request, form url.Values) (id, code string) {
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if basicID, basicSecret, ok := r.BasicAuth(); ok {
		id, _ = url.QueryUnescape(basicID) // what cannot be decoded is not known
		secret, _ = url.QueryUnescape(basicSecret)
	}
	n := slices.IndexFunc(s.opts.Clients, func(c SlackClient) bool { return c.ID == id })
	switch {
	case n < 0:
		return "", "invalid_client_id"
	case !equal(secret, s.opts.Clients[n].Secret):
		return "", "bad_client_secret"
	}
	return id, ""
}

// redeem uses a code up, even if the request is then refused. The caller does the locking.
func (s *SlackWorkspaces) redeem(client string, form url.Values) (*slackInstallation, Person, string) {
	kept, ok := s.codes.get(s.opts.Now(), form.Get("code"))
	if !ok {
		return nil, Person{}, "invalid_code"
	}
	code := *kept
	s.codes.drop(form.Get("code"))
	switch {
	case code.client != client:
		return nil, Person{}, "invalid_code"
	case form.Get("redirect_uri") != code.redirect:
		return nil, Person{}, "bad_redirect_uri"
	}
	team := s.team(code.person)
	for _, in := range s.installed {
		if in.client == client && in.id == team {
			in.scope = union(in.scope, code.scope) // what was granted once stays
			return in, code.person, ""
		}
	}
	_, name := code.person.employer()
	in := &slackInstallation{client: client, id: team, name: name, whole: s.opts.WholeOrganization,
		scope: union(nil, code.scope), refresh: map[string]time.Time{}}
	s.installed = append(s.installed, in)
	return in, code.person, ""
}

// refreshed finds a refresh token, which may be used once, and for a moment again. The caller
// does the locking.
func (s *SlackWorkspaces) refreshed(client, token string) (*slackInstallation, string) {
	now := s.opts.Now()
	for _, in := range s.installed {
		used, known := in.refresh[token]
		switch {
		case in.client != client || !known || !used.IsZero() && now.Sub(used) > slackGrace:
			continue
		case used.IsZero():
			in.refresh[token] = now
		}
		return in, ""
	}
	return nil, "invalid_refresh_token"
}

// answer gives out new tokens; who is zero at a refresh. The caller does the locking.
func (s *SlackWorkspaces) answer(in *slackInstallation, who Person) map[string]any {
	party := map[string]any{"id": in.id, "name": in.name}
	answer := map[string]any{"ok": true, "app_id": upperID("A", in.client, 11), "team": party, "enterprise": nil,
		"is_enterprise_install": in.whole}
	if in.whole {
		answer["team"], answer["enterprise"] = nil, party
	}
	if who.Key != "" {
		answer["authed_user"] = map[string]any{"id": upperID("U", who.Key, 11)}
	}
	if s.opts.OnlyPerson {
		answer["authed_user"] = map[string]any{"id": upperID("U", who.Key, 11), "scope": "chat:write",
			"access_token": "xoxp-" + random(), "token_type": "user"}
		return answer
	}
	token := slackToken{text: "xoxb-" + random()}
	if !s.opts.NoRotation {
		token = slackToken{"xoxe.xoxb-1-" + random(), s.opts.Now().Add(slackAccessLife)}
		next := "xoxe-1-" + random()
		in.refresh[next] = time.Time{}
		answer["refresh_token"], answer["expires_in"] = next, int(slackAccessLife.Seconds())
	}
	in.access = append(in.access, token)
	if s.opts.NoRotation { // an installation has one, which stays
		in.access = in.access[:1]
		token = in.access[0]
	}
	in.access = in.access[max(0, len(in.access)-slackActive):]
	answer["access_token"], answer["token_type"], answer["scope"] = token.text, "bot", strings.Join(in.scope, ",")
	answer["bot_user_id"] = in.bot()
	return answer
}

func (i *slackInstallation) bot() string { return upperID("U", "bot of "+i.client+" in "+i.id, 11) }

// slackMethod is a method of the API, and the scopes of which it needs one; none: no scope.
type slackMethod struct {
	scopes string
	posts  bool // it takes no GET
	answer func(*SlackWorkspaces, *slackInstallation, url.Values) (map[string]any, string)
}

// slackMethods are those that are served. Which scope each needs is in its reference.
func slackMethods() map[string]slackMethod {
	const reads = "channels:read groups:read im:read mpim:read"
	const history = "channels:history groups:history im:history mpim:history"
	ok := func(*SlackWorkspaces, *slackInstallation, url.Values) (map[string]any, string) {
		return map[string]any{}, ""
	}
	return map[string]slackMethod{
		"auth.test":                   {"", false, (*SlackWorkspaces).authTest},
		"auth.revoke":                 {"", false, (*SlackWorkspaces).authRevoke},
		"apps.uninstall":              {"", false, (*SlackWorkspaces).uninstall},
		"conversations.list":          {reads, false, (*SlackWorkspaces).conversations},
		"users.conversations":         {reads, false, (*SlackWorkspaces).conversations},
		"conversations.info":          {reads, false, ok},
		"conversations.members":       {reads, false, ok},
		"conversations.history":       {history, false, (*SlackWorkspaces).history},
		"conversations.replies":       {history, false, (*SlackWorkspaces).history},
		"conversations.create":        {"channels:manage groups:write im:write mpim:write", true, ok},
		"chat.postMessage":            {"chat:write", true, (*SlackWorkspaces).post},
		"chat.postEphemeral":          {"chat:write", true, ok},
		"chat.update":                 {"chat:write", true, ok},
		"chat.delete":                 {"chat:write", true, ok},
		"chat.scheduleMessage":        {"chat:write", true, ok},
		"chat.deleteScheduledMessage": {"chat:write", true, ok},
		"reactions.get":               {"reactions:read", false, ok},
		"reactions.list":              {"reactions:read", false, ok},
		"reactions.add":               {"reactions:write", true, ok},
		"reactions.remove":            {"reactions:write", true, ok},
	}
}

// call serves a method of the API.
func (s *SlackWorkspaces) call(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("method")
	m, known := slackMethods()[name]
	args, err := slackArguments(r)
	switch {
	case !known:
		slackNo(w, "unknown_method")
		return
	case err != nil:
		slackNo(w, "invalid_form_data")
		return
	case m.posts && r.Method != http.MethodPost:
		slackNo(w, "invalid_arguments")
		return
	}
	// Like Slack it takes a token in the arguments too.
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if args.Has("token") {
		token = args.Get("token")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in, code := s.admit(token, name == "auth.revoke")
	if code != "" {
		slackNo(w, code)
		return
	}
	w.Header().Set("X-Oauth-Scopes", strings.Join(in.scope, ","))
	needed := strings.Fields(m.scopes)
	has := func(scope string) bool { return slices.Contains(in.scope, scope) }
	if len(needed) > 0 && !slices.ContainsFunc(needed, has) {
		_ = writeJSON(w, http.StatusOK, map[string]any{"ok": false, "error": "missing_scope", // the client has gone
			"needed": strings.Join(needed, ","), "provided": strings.Join(in.scope, ",")})
		return
	}
	args.Set("token", token)
	answer, code := m.answer(s, in, args)
	if code != "" {
		slackNo(w, code)
		return
	}
	answer["ok"] = true
	_ = writeJSON(w, http.StatusOK, answer) // the client has gone
}

// slackArguments reads those of a query and of the bodies that Slack takes. Of JSON it
// reads texts. What it makes of text/plain, which Slack takes too, is not written anywhere:
// here it is the worst, a form.
func slackArguments(r *http.Request) (url.Values, error) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	args := r.URL.Query()
	switch kind {
	case "application/json":
		var members map[string]any
		if err := json.NewDecoder(r.Body).Decode(&members); err != nil {
			return nil, fmt.Errorf("read the arguments: %w", err)
		}
		for name, value := range members {
			if text, ok := value.(string); ok {
				args.Set(name, text)
			}
		}
		return args, nil
	case "multipart/form-data":
		if err := r.ParseMultipartForm(maxBody); err != nil {
			return nil, fmt.Errorf("read the arguments: %w", err)
		}
	case "text/plain":
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, fmt.Errorf("read the arguments: %w", err)
		}
		form, err := url.ParseQuery(string(body))
		maps.Copy(args, form)
		return args, err
	default:
		if err := r.ParseForm(); err != nil {
			return nil, fmt.Errorf("read the arguments: %w", err)
		}
	}
	return r.Form, nil
}

// admit finds the installation of a token: an access token, or with refresh also one to
// refresh with. The caller does the locking.
func (s *SlackWorkspaces) admit(token string, refresh bool) (*slackInstallation, string) {
	if token == "" {
		return nil, "not_authed"
	}
	for _, in := range s.installed {
		for _, t := range in.access {
			switch {
			case !equal(t.text, token):
			case !s.lasts(t):
				return nil, "token_expired"
			default:
				return in, ""
			}
		}
		if _, known := in.refresh[token]; known && refresh {
			return in, ""
		}
	}
	return nil, "invalid_auth"
}

func (s *SlackWorkspaces) authTest(in *slackInstallation, _ url.Values) (map[string]any, string) {
	answer := map[string]any{"url": "https://" + strings.ToLower(in.id) + ".slack.com/", "team": in.name,
		"team_id": in.id, "user": "planner", "user_id": in.bot(), "is_enterprise_install": in.whole}
	if in.whole {
		answer["enterprise_id"] = in.id
	}
	return answer, ""
}

// authRevoke ends one token, and not the installation.
func (s *SlackWorkspaces) authRevoke(in *slackInstallation, args url.Values) (map[string]any, string) {
	token := args.Get("token")
	in.access = slices.DeleteFunc(in.access, func(t slackToken) bool { return equal(t.text, token) })
	delete(in.refresh, token)
	return map[string]any{"revoked": true}, ""
}

func (s *SlackWorkspaces) uninstall(in *slackInstallation, args url.Values) (map[string]any, string) {
	id, code := s.authenticate(&http.Request{}, args)
	switch {
	case code != "":
		return nil, code
	case id != in.client:
		return nil, "client_id_token_mismatch"
	case s.opts.KeepsApps:
		return nil, "is_bot"
	}
	s.installed = slices.DeleteFunc(s.installed, func(other *slackInstallation) bool { return other == in })
	return map[string]any{}, ""
}

// slackChannels is how many a workspace has.
const slackChannels = 7

// conversations lists channels, some at a time: what comes next is at next_cursor.
// https://docs.slack.dev/apis/web-api/pagination
func (s *SlackWorkspaces) conversations(in *slackInstallation, args url.Values) (map[string]any, string) {
	limit, first := 100, 0
	if text := args.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return nil, "invalid_limit"
		}
		limit = n
	}
	if cursor := args.Get("cursor"); cursor != "" {
		n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(cursor, "team:C"), "="))
		if err != nil || n < 0 || n > slackChannels {
			return nil, "invalid_cursor"
		}
		first = n
	}
	channels, next := []any{}, ""
	for n := first; n < min(first+limit, slackChannels); n++ {
		channels = append(channels, map[string]any{"id": upperID("C", fmt.Sprint(in.id, n), 11),
			"name": fmt.Sprintf("channel-%d", n), "is_channel": true, "is_private": false})
	}
	if first+limit < slackChannels {
		next = fmt.Sprintf("team:C%d=", first+limit)
	}
	return map[string]any{"channels": channels, "response_metadata": map[string]any{"next_cursor": next}}, ""
}

// history has direct messages (D…) only: nothing else is of the scopes that there are.
func (s *SlackWorkspaces) history(_ *slackInstallation, args url.Values) (map[string]any, string) {
	if !strings.HasPrefix(args.Get("channel"), "D") {
		return nil, "missing_scope"
	}
	return map[string]any{"messages": []any{}, "has_more": false}, ""
}

func (s *SlackWorkspaces) post(in *slackInstallation, args url.Values) (map[string]any, string) {
	switch {
	case args.Get("channel") == "":
		return nil, "channel_not_found"
	case args.Get("text") == "":
		return nil, "no_text"
	}
	s.posted = append(s.posted, args.Get("text"))
	ts := fmt.Sprintf("%d.%06d", s.opts.Now().Unix(), len(s.posted))
	return map[string]any{"channel": args.Get("channel"), "ts": ts,
		"message": map[string]any{"type": "message", "text": args.Get("text"), "user": in.bot(), "ts": ts}}, ""
}
