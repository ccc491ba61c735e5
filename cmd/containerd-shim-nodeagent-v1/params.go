//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"os"

	"google.golang.org/protobuf/encoding/protowire"

	"nodeagent/internal/shimapi"
)

// maxParams bounds what is read from containerd.
const maxParams = 10 << 20

// params are what a start needs of containerd's BootstrapParams
// (containerd.runtime.bootstrap.v1), read without the generated type: to register
// its descriptors takes longer than all else that this program does.
type params struct {
	instance, namespace string
	address             string // of containerd's gRPC socket: part of a shim's name
	socketDir           string
	shimCgroup          bool // the runc options want the shim in a cgroup
}

// Field numbers of BootstrapParams, Extension, google.protobuf.Any and
// containerd.runc.v1.Options.
const (
	paramsInstance   = 1
	paramsNamespace  = 2
	paramsAddress    = 6
	paramsExtension  = 8
	paramsSocketDir  = 9
	extensionValue   = 1
	anyValue         = 2
	optionShimCgroup = 3
)

var errParams = errors.New("not containerd's bootstrap parameters")

func parseParams(b []byte) (p params, err error) {
	err = fields(b, func(n protowire.Number, v []byte) error {
		switch n {
		case paramsInstance:
			p.instance = string(v)
		case paramsNamespace:
			p.namespace = string(v)
		case paramsAddress:
			p.address = string(v)
		case paramsSocketDir:
			p.socketDir = string(v)
		case paramsExtension:
			return fields(v, func(n protowire.Number, v []byte) error {
				if n != extensionValue {
					return nil
				}
				return fields(v, func(n protowire.Number, v []byte) error {
					if n == anyValue {
						p.shimCgroup = p.shimCgroup || hasShimCgroup(v)
					}
					return nil
				})
			})
		}
		return nil
	})
	if err == nil && (p.instance == "" || p.namespace == "") {
		err = errParams // of a containerd before 2.3
	}
	return p, err
}

// hasShimCgroup looks into an extension that most likely is runc's options. One of
// another kind that has such a field starts by the longer way, no worse.
func hasShimCgroup(options []byte) (found bool) {
	err := fields(options, func(n protowire.Number, v []byte) error {
		found = found || n == optionShimCgroup && len(v) > 0
		return nil
	})
	return found || err != nil
}

// fields calls f with each field of a message that has a length; others are passed
// over.
func fields(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errParams
		}
		b = b[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return errParams
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return errParams
		}
		if err := f(number, v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// started is the BootstrapResult: version 3, the address, "ttrpc".
func started(address string) []byte {
	b := protowire.AppendTag(nil, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, 3)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendString(b, address)
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	return protowire.AppendString(b, "ttrpc")
}

// deleted is the task service's DeleteResponse: pid, exit status, and when.
func deleted(r shimapi.ExitRecord) []byte {
	var at []byte
	at = protowire.AppendTag(at, 1, protowire.VarintType)
	at = protowire.AppendVarint(at, uint64(r.ExitedAt.Unix()))
	at = protowire.AppendTag(at, 2, protowire.VarintType)
	at = protowire.AppendVarint(at, uint64(r.ExitedAt.Nanosecond()))
	b := protowire.AppendTag(nil, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(r.Pid))
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(r.ExitCode))
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	return protowire.AppendBytes(b, at)
}

// readGroup reads the pod that a bundle's container belongs to; empty for none.
func readGroup(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return "", err
	}
	return spec.Annotations[shimapi.GroupAnnotation], nil
}
