package cert

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// renewal is when a certificate is to be renewed: at 70 to 90 percent of its
// life, as kubelet does. Where between them is drawn from the certificate
// itself, so that the nodes of a cluster do not all come at once and a restart
// does not draw again.
func renewal(leaf *x509.Certificate) time.Time {
	sum := sha256.Sum256(leaf.Raw)
	part := 0.7 + 0.2*float64(binary.BigEndian.Uint64(sum[:]))/(1<<64)
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(time.Duration(float64(life) * part))
}

const (
	firstPause   = time.Second
	longestPause = 30 * time.Second // while the server is away
	firstRefusal = time.Minute
	longRefusal  = 10 * time.Minute // a cluster that says no is not asked all day
)

// pause is how long to wait after the nth failure in a row, 1 being the first:
// doubled each time, and between half and all of it so that nodes spread.
func pause(n int, refused bool) time.Duration {
	first, longest := firstPause, longestPause
	if refused {
		first, longest = firstRefusal, longRefusal
	}
	d := longest
	if n < 20 {
		d = min(first<<max(n-1, 0), longest)
	}
	return d/2 + rand.N(d/2+1)
}
