package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// figure is what the program that serves says of itself, over all families.
func (b *bench) figure(ctx context.Context, name string) (float64, error) {
	client := http.Client{Transport: &http.Transport{DialContext: b.bed.Connect, DisableKeepAlives: true}, Timeout: changeLimit}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:10249/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("ask for the program's own figures: %w", err)
	}
	defer resp.Body.Close()
	return sum(resp.Body, "kubeproxy_"+name)
}

// sum adds up a figure, whatever labels it has.
func sum(in io.Reader, name string) (total float64, err error) {
	found := false
	s := bufio.NewScanner(in)
	for s.Scan() {
		rest, ok := strings.CutPrefix(s.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		x, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", name, err)
		}
		total, found = total+x, true
	}
	if err := s.Err(); err != nil {
		return 0, err
	}
	if !found {
		return 0, fmt.Errorf("the program has no figure %s", name)
	}
	return total, nil
}
