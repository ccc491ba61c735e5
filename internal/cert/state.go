package cert

import "time"

// State is what an operator wants to know of a certificate.
type State struct {
	// Subject, NotBefore and NotAfter are of the certificate in use; zero if
	// there is none, or if it is not certificates by which we are known.
	Subject             string
	NotBefore, NotAfter time.Time
	// Renew is when a new one will be asked for; zero: by nobody here.
	Renew time.Time
	// Request is the signing request that waits to be approved, since Since.
	Request string
	Since   time.Time
	// Failures counts the attempts in a row that came to nothing, Next is when
	// there will be another.
	Failures int
	Next     time.Time
	// Errors counts all attempts of this daemon that failed.
	Errors int
	// Problem is what is wrong, or "".
	Problem string
}

// Expired tells whether a certificate is in use that is no longer valid.
func (s State) Expired(now time.Time) bool { return !s.NotAfter.IsZero() && now.After(s.NotAfter) }
