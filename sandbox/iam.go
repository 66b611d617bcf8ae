package sandbox

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// The token API of IAM, as ESM API Reference 3.2 uses it; global services such as BSS want tokens of the domain instead.

func (s *Server) iamRoutes() []route {
	return []route{
		{http.MethodPost, "/v3/auth/tokens", EndpointToken, true, s.createToken},
	}
}

// tokenRequest is the body of ESM API Reference 3.2. The project's domain is what OpenStack clients send along.
type tokenRequest struct {
	Auth *struct {
		Identity *struct {
			Methods  []string `json:"methods"`
			Password *struct {
				User *struct {
					Name     string  `json:"name"`
					Password string  `json:"password"`
					Domain   *naming `json:"domain"`
				} `json:"user"`
			} `json:"password"`
		} `json:"identity"`
		Scope *struct {
			Project *struct {
				Name   string  `json:"name"`
				Domain *naming `json:"domain"`
			} `json:"project"`
			Domain *naming `json:"domain"`
		} `json:"scope"`
	} `json:"auth"`
}

type naming struct {
	Name string `json:"name"`
}

// token is what is known of a token given out: it is good for the project, or for the tenant's domain and no project.
type token struct {
	expires   time.Time
	ofProject bool
}

// tokenTime is the form of expires_at: microseconds, always six digits.
const tokenTime = "2006-01-02T15:04:05.000000Z"

func (s *Server) createToken(c *call) reply {
	var req tokenRequest
	dec := json.NewDecoder(strings.NewReader(string(c.body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil || dec.More() {
		return iamError(http.StatusBadRequest, "Request body is invalid.")
	}
	if req.Auth == nil || req.Auth.Identity == nil || len(req.Auth.Identity.Methods) != 1 || req.Auth.Identity.Methods[0] != "password" ||
		req.Auth.Identity.Password == nil || req.Auth.Identity.Password.User == nil {
		return iamError(http.StatusBadRequest, "auth.identity must have the method password and a user.")
	}
	user := req.Auth.Identity.Password.User
	if user.Name == "" || user.Password == "" || user.Domain == nil || user.Domain.Name == "" {
		return iamError(http.StatusBadRequest, "auth.identity.password.user must have name, password and domain.name.")
	}
	scope := req.Auth.Scope
	if scope == nil || (scope.Project == nil) == (scope.Domain == nil) {
		return iamError(http.StatusBadRequest, "auth.scope must have either a project or a domain.")
	}
	if scope.Project != nil && scope.Project.Name == "" || scope.Domain != nil && scope.Domain.Name == "" {
		return iamError(http.StatusBadRequest, "auth.scope.project.name or auth.scope.domain.name is missing.")
	}
	if !same(user.Name, s.config.User) || !same(user.Password, s.config.Password) || !same(user.Domain.Name, s.config.Domain) {
		return iamError(http.StatusUnauthorized, "The username or password is wrong.")
	}
	if p := scope.Project; p != nil && (!same(p.Name, s.config.Project) || p.Domain != nil && !same(p.Domain.Name, s.config.Domain)) {
		return iamError(http.StatusUnauthorized, "The project does not exist or is not accessible.")
	}
	if d := scope.Domain; d != nil && !same(d.Name, s.config.Domain) {
		return iamError(http.StatusUnauthorized, "The domain does not exist or is not accessible.")
	}

	// Real tokens begin so and are a few thousand letters long.
	text := "MIIPAgYJKoZIhvcNAQcCo" + strings.Repeat(randomID(), 64)
	now := s.now().UTC()
	expires := now.Add(s.config.TokenTTL)
	s.mu.Lock()
	s.tokens[text] = token{expires: expires, ofProject: scope.Project != nil}
	s.mu.Unlock()
	s.counters.token()

	body := map[string]any{
		"methods":    []string{"password"},
		"issued_at":  now.Format(tokenTime),
		"expires_at": expires.Format(tokenTime),
		"user":       map[string]any{"id": "7116d09f88fa41908676fdd4b039e95b", "name": s.config.User, "domain": naming{s.config.Domain}},
		"roles":      []any{},
		"catalog":    []any{},
	}
	if scope.Project != nil {
		body["project"] = map[string]any{"id": DefaultProjectID, "name": s.config.Project, "domain": naming{s.config.Domain}}
	} else {
		body["domain"] = map[string]any{"id": s.config.DomainID, "name": s.config.Domain}
	}
	rep := jsonReply(http.StatusCreated, map[string]any{"token": body})
	rep.header = http.Header{"X-Subject-Token": {text}}
	return rep
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// iamError is IAM's own form of an error, which differs from ESM's.
func iamError(status int, message string) reply {
	return jsonReply(status, map[string]any{"error": map[string]any{
		"code": status, "message": message, "title": http.StatusText(status),
	}})
}

// checkToken finds out whether the call's token is good.
func (s *Server) checkToken(c *call) (token, reply, bool) {
	text := c.Header.Get("X-Auth-Token")
	if text == "" {
		return token{}, badToken("x-auth-token not found"), false
	}
	s.mu.Lock()
	t, known := s.tokens[text]
	s.mu.Unlock()
	if !known {
		return token{}, badToken("decrypt token fail"), false
	}
	if !s.now().Before(t.expires) {
		return token{}, badToken("token expires"), false
	}
	return t, reply{}, true
}

// badToken is the gateway's refusal of a token or a signature.
func badToken(reason string) reply {
	return refuse(http.StatusUnauthorized, "APIG.0301", "Incorrect IAM authentication information: %s", reason)
}

// authenticate is for ESM, a project-level service: it checks the token and, where configured, the AppCodes and the tenant header.
func (s *Server) authenticate(c *call) (reply, bool) {
	if want := s.config.APIGAppcode; want != "" && !same(c.Header.Get("X-APIG-Appcode"), want) {
		return refuse(http.StatusUnauthorized, "APIG.0303", "Incorrect app authentication information"), false
	}
	t, rep, ok := s.checkToken(c)
	if !ok {
		return rep, false
	}
	if !t.ofProject {
		return refuse(http.StatusForbidden, "AS.0003", "The token is good for a domain, and ESM wants one for a project"), false
	}
	if want := s.config.HCSOAppcode; want != "" && !same(c.Header.Get("X-Hcso-Appcode"), want) {
		return refuse(http.StatusForbidden, "AS.0003", "The x-hcso-appcode is missing or wrong"), false
	}
	if want := s.config.HCSODomainID; want != "" && !same(c.Header.Get("X-Hcso-Domainid"), want) {
		return refuse(http.StatusForbidden, "AS.0003", "The x-hcso-domainid is missing or wrong"), false
	}
	return reply{}, true
}

// revokeTokens makes every token invalid, as a change of permissions does.
func (s *Server) revokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}
