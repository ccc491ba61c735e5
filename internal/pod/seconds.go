package pod

import "time"

// longest is the longest time that a pod can ask for. Two of them can be added to
// each other and to any date.
const longest = 100 * 365 * 24 * time.Hour

// Seconds is the time of a field of the API, which may be any number: what is more
// than a time.Duration can hold would turn round, and a pod that asked for all the
// time in the world would get none.
func Seconds(n int64) time.Duration {
	const most = int64(longest / time.Second)
	return time.Duration(max(-most, min(n, most))) * time.Second
}
