package demo

import (
	"net/http"
	"slices"
	"strings"
)

// GoogleCustomerPath is where Google's Directory API tells an administrator of their own
// Workspace (customers.get). Google has it on a host of its own.
const GoogleCustomerPath = "/admin/directory/v1/customers/my_customer"

const directoryScope = "https://www.googleapis.com/auth/admin.directory.customer.readonly"

// directory adds what an administrator's token opens, and where it ends. Administrators are
// those of a Workspace who are in the group admins.
func (k *providerKind) directory() {
	k.scopes = append(k.scopes, directoryScope)
	k.further = func(p *Provider) {
		p.mux.HandleFunc("GET "+GoogleCustomerPath, p.customer)
		p.mux.Handle("POST "+GoogleRevokePath, p.endpoint(p.revoke))
	}
}

// customer answers with the Customer resource, or with an error as Google's APIs make them.
func (p *Provider) customer(w http.ResponseWriter, r *http.Request) {
	g, err := p.bearer(r)
	var refused *apiError
	switch who := g.person; {
	case err != nil:
		refused = &apiError{code: http.StatusUnauthorized, reason: "authError", message: "Invalid Credentials"}
	case !slices.Contains(g.scope, directoryScope):
		refused = &apiError{code: http.StatusForbidden, reason: "insufficientPermissions",
			message: "Request had insufficient authentication scopes.", method: "directory.customers.get"}
	case who.OrgDomain == "" || !slices.Contains(who.Groups, "admins"):
		refused = &apiError{code: http.StatusForbidden, reason: "forbidden",
			message: "Not Authorized to access this resource/api"}
	}
	if refused != nil {
		refused.domain = "global"
		_ = writeJSON(w, refused.code, refused.body()) // the client has gone
		return
	}
	part := fieldsOf(g.person.customer(), r.URL.Query().Get("fields"))
	_ = writeJSON(w, http.StatusOK, part) // the client has gone
}

// customer is the Workspace of p, as its administrators are told of it:
// https://developers.google.com/workspace/admin/directory/reference/rest/v1/customers.
func (p Person) customer() map[string]any {
	return map[string]any{
		"kind": "admin#directory#customer", "id": strings.ToLower(upperID("C", p.OrgDomain, 9)),
		"etag": `"demo"`, "customerDomain": p.OrgDomain, "alternateEmail": p.Email,
		"postalAddress": map[string]any{"contactName": p.Name, "organizationName": p.OrgName, "countryCode": "NL",
			"addressLine1": "1 Launch Road"},
		"customerCreationTime": "2016-07-10T21:09:10.604Z", "language": "en", "phoneNumber": "+31201234567",
	}
}

// fieldsOf is what a partial response has of v: names between commas, and below a slash.
func fieldsOf(v map[string]any, fields string) map[string]any {
	if fields == "" {
		return v
	}
	part := map[string]any{}
	for field := range strings.SplitSeq(fields, ",") {
		name, below, nested := strings.Cut(field, "/")
		inner, isObject := v[name].(map[string]any)
		switch {
		case nested && isObject:
			part[name] = fieldsOf(inner, below)
		case !nested && v[name] != nil:
			part[name] = v[name]
		}
	}
	return part
}

// revoke ends an access token. Google ends all that its person granted to the project; here
// that is nothing more.
func (p *Provider) revoke(w http.ResponseWriter, r *http.Request) error {
	form, err := readTokenForm(r)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.access.get(p.opts.Now(), form.Get("token")); !ok {
		return refuse("invalid_token", "Token expired or revoked")
	}
	p.access.drop(form.Get("token"))
	return writeJSON(w, http.StatusOK, struct{}{})
}
