package spec

import (
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// FuzzProfile: whatever a file of seccomp profiles holds, either it is refused or
// the container has a filter with a default action; never none (CVE-2023-2431).
func FuzzProfile(f *testing.F) {
	for _, text := range []string{
		`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]}]}`,
		`{}`, `null`, `[]`, `{"defaultAction":""}`, `{"defaultAction":"SCMP_ACT_LOG"} {}`, `{"defaultAction":"SCMP_ACT_LOG","defaultErrnoRet":18446744073709551616}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := decodeProfile(text)
		if err != nil {
			if !IsRefused(err) {
				t.Fatalf("%v is no refusal", err)
			}
			return
		}
		in := base()
		security(&in).Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: "p"}
		in.LocalhostProfile = p
		s, err := Build(in)
		if err != nil {
			t.Fatal(err)
		}
		if s.Linux.Seccomp == nil || s.Linux.Seccomp.DefaultAction == "" || s.Linux.Seccomp == p {
			t.Fatalf("%s became %+v", text, s.Linux.Seccomp)
		}
		if shared := aliases(in, s); shared != "" {
			t.Fatal(shared)
		}
	})
}
