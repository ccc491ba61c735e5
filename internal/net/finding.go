package net

import (
	"cmp"
	"slices"
)

// Reason is a Finding's kind, in the form of an event's reason.
type Reason string

// The reasons.
const (
	ReasonPort        Reason = "ServicePortInvalid"
	ReasonAddress     Reason = "ServiceAddressInvalid"
	ReasonConflict    Reason = "ServiceAddressConflict"
	ReasonNodeAddress Reason = "ServiceTakesNodeAddress"
	ReasonSourceRange Reason = "ServiceSourceRangeInvalid"
	ReasonAffinity    Reason = "ServiceAffinityInvalid"
	ReasonHealthPort  Reason = "ServiceHealthPortInvalid"
	ReasonEndpoint    Reason = "EndpointAddressInvalid"
	ReasonSlicePort   Reason = "EndpointPortInvalid"
	ReasonSlice       Reason = "EndpointSliceInvalid"
	ReasonRefused     Reason = "ServiceRulesRefused"
)

// Finding is something that an object asks for and does not get, or had better
// not have asked for.
type Finding struct {
	Reason  Reason
	Message string
}

// maxFindings bounds what one service can say: a slice with a thousand bad
// endpoints is one story.
const maxFindings = 16

// tidy sorts findings, drops what is said twice and what is too much.
func tidy(fs []Finding) []Finding {
	slices.SortFunc(fs, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message))
	})
	fs = slices.Compact(fs)
	if len(fs) > maxFindings {
		fs = fs[:maxFindings]
	}
	return slices.Clip(fs)
}
