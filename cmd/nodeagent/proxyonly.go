package main

import (
	"nodeagent/internal/server"
)

// fitProxyOnly fits a daemon that programs the rules of services and does nothing
// else: there are no pods' rooms, and a kubelet may run beside it. It has no local
// socket, since all that is asked there is about pods.
func (d *daemon) fitProxyOnly() error {
	if err := d.fitServices(); err != nil {
		return err
	}
	ready := make(chan struct{})
	close(ready)
	d.notify = &server.Notify{Ready: ready, Checks: d.progress(), Status: d.proxyStatus, Logger: d.log}
	d.parts = append(d.parts, part{"service manager", d.notify.Run})
	return nil
}

// proxyStatus is what the service manager shows.
func (d *daemon) proxyStatus() string {
	v := d.services.Show()
	text := "rules of services are not written yet"
	if !v.Updated.IsZero() {
		text = "rules of services are written"
	}
	for _, why := range v.Problems {
		text += "; " + why
	}
	return d.reload.status(text)
}
