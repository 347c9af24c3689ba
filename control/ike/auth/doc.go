// Package auth is who the two ends of an IKE SA are and how they prove it: identities (RFC 7296, section 3.5), shared keys
// (section 2.15) and certificates with digital signatures (RFC 7427).
package auth
