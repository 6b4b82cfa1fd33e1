package slack

import (
	"strings"

	"github.com/sallyport-proxy/sallyport/connector"
	"github.com/sallyport-proxy/sallyport/grant"
)

// The reasons of a grant.Error that only Slack has.
const (
	NoBotToken  = "no_bot_token" // only a token of the person came
	Uninstalled = "uninstalled"  // the app was removed from the workspace, or the token ended there
	AdminPolicy = "admin_policy" // an administrator of the workspace or its organization does not let it
)

// codes are Slack's own: those of https://docs.slack.dev/reference/methods/oauth.v2.access,
// and those of its other methods that tell of a token. Slack says that others may come.
// invalid_auth is not here: it may also say that we ask from an address that the workspace
// does not let in, and one such word must not end the grants of all.
func codes() connector.Codes {
	codes := connector.Codes{}
	for _, of := range []struct {
		connector.Meaning
		words string
	}{
		{connector.Meaning{Class: grant.Yours, Reason: connector.GrantRefused},
			"invalid_code code_already_used code_expired invalid_refresh_token token_expired"},
		{connector.Meaning{Class: grant.Gone, Reason: Uninstalled}, "token_revoked account_inactive app_uninstalled"},
		{connector.Meaning{Class: grant.AdminTheir, Reason: AdminPolicy},
			"cannot_install_an_org_installed_app enterprise_is_restricted ekm_access_denied no_permission " +
				"restricted_action team_access_not_granted two_factor_setup_required"},
		{connector.Meaning{Class: grant.Ours, Reason: connector.ClientRefused},
			"bad_client_secret invalid_client_id client_id_token_mismatch not_authed"},
		{connector.Meaning{Class: grant.Ours, Reason: connector.RequestRefused},
			"bad_redirect_uri oauth_authorization_url_mismatch invalid_grant_type invalid_scope no_scopes " +
				"invalid_team_for_non_distributed_app preview_feature_not_available token_rotation_not_enabled " +
				"is_bot missing_scope not_allowed_token_type deprecated_endpoint method_deprecated unknown_method " +
				"invalid_arguments invalid_arg_name invalid_array_arg invalid_charset invalid_form_data " +
				"invalid_post_type missing_post_type"},
		{connector.Meaning{Class: grant.Later, Reason: connector.Busy},
			// a workspace that is moved into an organization, twice; the network that we ask from
			"ratelimited rate_limited team_added_to_org org_login_required accesslimited request_timeout " +
				"service_unavailable internal_error fatal_error"},
	} {
		for word := range strings.FieldsSeq(of.words) {
			codes[word] = of.Meaning
		}
	}
	return codes
}
