package login

// AuthTimeAdvice says what has to be set at the provider, so that it tells when people
// proved who they are (auth_time, OIDC Core §2). It is for the people who run the site.
func (p *Provider) AuthTimeAdvice() string {
	switch p.kind {
	case TypeGoogle:
		return "In the Google Auth Platform, “Session age claims” has to be on, under Settings, Advanced settings."
	case TypeMicrosoft:
		return "In the app registration, the optional claim auth_time has to be added to the ID token, under Token " +
			"configuration."
	}
	return "The provider has to send auth_time in its ID tokens where max_age is asked for."
}
