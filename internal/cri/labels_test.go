package cri

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"

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
