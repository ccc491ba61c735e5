package status

import (
	"bytes"
	"encoding/json"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// difference returns the strategic merge patch that makes one status of the other, or
// nil where they are the same to the API server. It holds the pod's UID, so that it
// fails for another pod of the same name, and no field and no condition but those
// that changed, so that it never undoes what others write meanwhile.
//
// It is written by hand: apimachinery's CreateTwoWayMergePatch brings thirty packages
// along, OpenAPI's among them, for what are twelve fields of one type.
func difference(uid types.UID, have, want *corev1.PodStatus) []byte {
	status := map[string]any{}
	set := func(name string, before, after any) {
		if b := encode(after); !bytes.Equal(encode(before), b) {
			status[name] = json.RawMessage(b)
		}
	}
	set("phase", have.Phase, want.Phase)
	set("reason", have.Reason, want.Reason)
	set("message", have.Message, want.Message)
	set("qosClass", have.QOSClass, want.QOSClass)
	set("startTime", have.StartTime, want.StartTime)
	set("observedGeneration", have.ObservedGeneration, want.ObservedGeneration)
	set("hostIP", have.HostIP, want.HostIP)
	set("podIP", have.PodIP, want.PodIP)
	set("initContainerStatuses", have.InitContainerStatuses, want.InitContainerStatuses)
	set("containerStatuses", have.ContainerStatuses, want.ContainerStatuses)
	set("ephemeralContainerStatuses", have.EphemeralContainerStatuses, want.EphemeralContainerStatuses)
	if !bytes.Equal(encode(have.HostIPs), encode(want.HostIPs)) {
		status["hostIPs"] = replaced(want.HostIPs)
	}
	if !bytes.Equal(encode(have.PodIPs), encode(want.PodIPs)) {
		status["podIPs"] = replaced(want.PodIPs)
	}
	if changed := changedConditions(have.Conditions, want.Conditions); len(changed) > 0 {
		status["conditions"] = changed
	}
	if len(status) == 0 {
		return nil
	}
	return encode(map[string]any{"metadata": map[string]any{"uid": uid}, "status": status})
}

// encode writes a value as the API does, and one that says nothing as null, which
// in a patch takes a field away.
func encode(v any) []byte {
	if r := reflect.ValueOf(v); r.IsZero() || r.Kind() == reflect.Slice && r.Len() == 0 {
		return []byte("null")
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // types of the API, which are made to be written
	}
	return b
}

// replaced is a list that takes the place of the whole one before.
func replaced[T any](want []T) any {
	if len(want) == 0 {
		return nil
	}
	all := []any{map[string]string{"$patch": "replace"}}
	for _, v := range want {
		all = append(all, v)
	}
	return all
}

// changedConditions lists the conditions that are new or differ.
func changedConditions(have, want []corev1.PodCondition) []any {
	var changed []any
	for i := range want {
		c, before := &want[i], conditionOf(have, want[i].Type)
		if before != nil && bytes.Equal(encode(*before), encode(*c)) {
			continue
		}
		// Every field, since one that is left out would keep what it was.
		changed = append(changed, map[string]any{
			"type": c.Type, "status": c.Status,
			"reason": json.RawMessage(encode(c.Reason)), "message": json.RawMessage(encode(c.Message)),
			"lastTransitionTime": json.RawMessage(encode(c.LastTransitionTime)), "lastProbeTime": json.RawMessage(encode(c.LastProbeTime)),
			"observedGeneration": json.RawMessage(encode(c.ObservedGeneration)),
		})
	}
	for i := range have {
		if conditionOf(want, have[i].Type) == nil {
			changed = append(changed, map[string]any{"type": have[i].Type, "$patch": "delete"})
		}
	}
	return changed
}
