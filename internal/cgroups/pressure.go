package cgroups

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// parsePressure parses a pressure file:
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=0
func parsePressure(b []byte) (Pressure, error) {
	var p Pressure
	for line := range bytes.Lines(b) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 {
			continue
		}
		share := &p.Some
		switch fields[0] {
		case "some":
		case "full":
			share = &p.Full
		default:
			return Pressure{}, fmt.Errorf("pressure line begins with %q", fields[0])
		}
		for _, f := range fields[1:] {
			if err := share.set(f); err != nil {
				return Pressure{}, err
			}
		}
	}
	return p, nil
}

func (s *PressureShare) set(field string) (err error) {
	key, value, _ := strings.Cut(field, "=")
	switch key {
	case "avg10":
		s.Avg10, err = percent(value)
	case "avg60":
		s.Avg60, err = percent(value)
	case "avg300":
		s.Avg300, err = percent(value)
	case "total":
		s.Total, err = strconv.ParseUint(value, 10, 64)
	}
	if err != nil {
		return fmt.Errorf("pressure field %q: %w", key, err)
	}
	return nil
}

func percent(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
		err = strconv.ErrRange // JSON has no such number
	}
	return v, err
}
