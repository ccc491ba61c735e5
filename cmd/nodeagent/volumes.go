package main

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"nodeagent/internal/volume"
)

// volumesWait is how long who asks for the volumes' usage waits for it to be
// counted; what takes longer is there when it is asked for again.
const volumesWait = time.Second

// volumesTaken is what the volumes of each pod take.
func (d *daemon) volumesTaken() map[types.UID]volume.Reading {
	ctx, cancel := context.WithTimeout(context.Background(), volumesWait)
	defer cancel()
	var uids []types.UID
	for _, p := range d.set.Pods() {
		uids = append(uids, p.UID)
	}
	return d.volumes.Usage(ctx, uids)
}
