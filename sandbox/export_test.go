package sandbox

import "net/http"

// CanonicalHash is the hash of what is signed of a request.
func CanonicalHash(r *http.Request, body []byte, headers []string) (string, error) {
	canonical, err := canonicalRequest(r, body, headers)
	return hexSHA256(canonical), err
}

// CanonicalQuery is the part of it that comes from the query.
var CanonicalQuery = canonicalQuery

// Signature is the signature of a request.
func Signature(secret string, r *http.Request, body []byte, headers []string) (string, error) {
	canonical, err := canonicalRequest(r, body, headers)
	return signatureOf(secret, r.Header.Get("X-Sdk-Date"), canonical), err
}
