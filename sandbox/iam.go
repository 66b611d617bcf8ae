package sandbox

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// The token API of IAM, as ESM API Reference 3.2 uses it.

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
		} `json:"scope"`
	} `json:"auth"`
}

type naming struct {
	Name string `json:"name"`
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
	if req.Auth.Scope == nil || req.Auth.Scope.Project == nil || req.Auth.Scope.Project.Name == "" {
		return iamError(http.StatusBadRequest, "auth.scope.project.name is missing: ESM is a project-level service.")
	}
	project := req.Auth.Scope.Project
	if !same(user.Name, s.config.User) || !same(user.Password, s.config.Password) || !same(user.Domain.Name, s.config.Domain) {
		return iamError(http.StatusUnauthorized, "The username or password is wrong.")
	}
	if !same(project.Name, s.config.Project) || (project.Domain != nil && !same(project.Domain.Name, s.config.Domain)) {
		return iamError(http.StatusUnauthorized, "The project does not exist or is not accessible.")
	}

	// Real tokens begin so and are a few thousand letters long.
	token := "MIIPAgYJKoZIhvcNAQcCo" + strings.Repeat(randomID(), 64)
	now := time.Now().UTC()
	expires := now.Add(s.config.TokenTTL)
	s.mu.Lock()
	s.tokens[token] = expires
	s.mu.Unlock()
	s.counters.token()

	rep := jsonReply(http.StatusCreated, map[string]any{"token": map[string]any{
		"methods":    []string{"password"},
		"issued_at":  now.Format(tokenTime),
		"expires_at": expires.Format(tokenTime),
		"project":    map[string]any{"id": "0a4c6de1b77b4a30a3a1fd2b6ce5f201", "name": s.config.Project, "domain": naming{s.config.Domain}},
		"user":       map[string]any{"id": "7116d09f88fa41908676fdd4b039e95b", "name": s.config.User, "domain": naming{s.config.Domain}},
		"roles":      []any{},
		"catalog":    []any{},
	}})
	rep.header = http.Header{"X-Subject-Token": {token}}
	return rep
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// iamError is IAM's own form of an error, which differs from ESM's.
func iamError(status int, message string) reply {
	return jsonReply(status, map[string]any{"error": map[string]any{
		"code": status, "message": message, "title": http.StatusText(status),
	}})
}

// authenticate checks token and, where configured, the AppCodes and the tenant header.
func (s *Server) authenticate(c *call) (reply, bool) {
	if want := s.config.APIGAppcode; want != "" && !same(c.Header.Get("X-APIG-Appcode"), want) {
		return refuse(http.StatusUnauthorized, "APIG.0303", "Incorrect app authentication information"), false
	}
	token := c.Header.Get("X-Auth-Token")
	if token == "" {
		return refuse(http.StatusUnauthorized, "APIG.0301", "Incorrect IAM authentication information: x-auth-token not found"), false
	}
	s.mu.Lock()
	expires, known := s.tokens[token]
	s.mu.Unlock()
	if !known {
		return refuse(http.StatusUnauthorized, "APIG.0301", "Incorrect IAM authentication information: decrypt token fail"), false
	}
	if !time.Now().Before(expires) {
		return refuse(http.StatusUnauthorized, "APIG.0301", "Incorrect IAM authentication information: token expires"), false
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
