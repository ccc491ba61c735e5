package cri

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"
	corev1 "k8s.io/api/core/v1"

	"nodeagent/internal/pod"
)

func TestExitLabelFits(t *testing.T) {
	e := exitLabel{Code: 128, Finished: time.Now(), Reason: "StartError", Message: strings.Repeat("\x00é\"", 4000)}
	s := e.encode()
	if len(s)+len(labelExit) > maxLabel {
		t.Errorf("label of %d bytes", len(s))
	}
	var back exitLabel
	if err := json.Unmarshal([]byte(s), &back); err != nil || back.Code != 128 || !back.Finished.Equal(e.Finished) {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestKeptLabels(t *testing.T) {
	got := keptLabels(map[string]string{
		pod.LabelGrace: "30", "containerd.io/gc.root": "x", "io.cri-containerd.kind": "container", labelKind: "sandbox", labelNetns: "/",
	})
	if len(got) != 1 || got[pod.LabelGrace] != "30" {
		t.Errorf("%v", got)
	}
}

// TestUserLabel: whom a container began as is known to the next daemon too.
func TestUserLabel(t *testing.T) {
	for _, u := range []corev1.LinuxContainerUser{
		{}, {UID: 1000, GID: 2000}, {UID: 1<<32 - 1, GID: 3, SupplementalGroups: []int64{3, 1 << 31, 0}},
	} {
		if back := decodeUser(encodeUser(&u)); !reflect.DeepEqual(back, &u) {
			t.Errorf("%+v is read back as %+v", u, back)
		}
	}
	many := corev1.LinuxContainerUser{SupplementalGroups: make([]int64, 4096)}
	if text := encodeUser(&many); text != "" {
		t.Errorf("a label of %d bytes", len(text))
	}
	for _, text := range []string{"", "1", "1:2", "1:2:3:4", "-1:2:", "1:2:,", "1:2:3,", "4294967296:0:", "a:b:c"} {
		if u := decodeUser(text); u != nil {
			t.Errorf("%q is %+v", text, u)
		}
	}
}

// FuzzRecord: whatever stands in a record, reading it neither fails hard nor
// makes up an end.
func FuzzRecord(f *testing.F) {
	f.Add(`{"code":7,"finished":"2026-01-01T00:00:00Z","reason":"Error"}`, "10s", "3", "10.0.0.1,fd00::1", []byte(`{"metadata":{"name":"a","uid":"u"}}`))
	f.Add("", "", "", "", []byte("{"))
	f.Fuzz(func(t *testing.T, exit, backoff, attempt, addrs string, config []byte) {
		labels := map[string]string{
			labelExit: exit, pod.LabelBackoff: backoff, labelAttempt: attempt, labelAddrs: addrs, labelKind: kindContainer,
		}
		c := containerOf(containers.Container{ID: "x", Labels: labels})
		if c.durable != (c.info.State == pod.ContainerExited) || exit == "" && c.durable {
			t.Errorf("%+v", c.info)
		}
		s, err := sandboxOf(containers.Container{ID: "x", Labels: labels, Extensions: map[string]typeurl.Any{
			sandboxExtension: &anypb.Any{TypeUrl: sandboxExtension, Value: config},
		}})
		if err == nil {
			_ = s.observe()
			_ = netRequest(s.id, s.netns, s.config)
		}
	})
}
