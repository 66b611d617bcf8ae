package aksk

// What the published test vectors are checked against.
var (
	CanonicalRequest = canonicalRequest
	CanonicalQuery   = canonicalQuery
	Signature        = signature
	HexSHA256        = hexSHA256
)
