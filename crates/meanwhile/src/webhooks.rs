//! `meanwhile webhooks`: endpoints, and what became of deliveries; over HTTP only.

use std::process::ExitCode;

use client::{DeliveryChoice, NewWebhookEndpoint, WebhookDelivery, WebhookEndpoint};

use crate::cli::webhooks::{CreateArgs, DeliveriesArgs, WebhooksCommand};
use crate::jobs::explained;
use crate::table::table;

/// `meanwhile webhooks`
#[expect(clippy::print_stdout, reason = "this is the command's answer")]
pub(crate) async fn run(command: WebhooksCommand) -> anyhow::Result<ExitCode> {
    match command {
        WebhooksCommand::List { json: true, api } => {
            println!("{:#}", api.client()?.webhook_endpoints_document().await.map_err(explained)?);
        }
        WebhooksCommand::List { json: false, api } => {
            let endpoints = api.client()?.webhook_endpoints().await.map_err(explained)?;
            match endpoints.is_empty() {
                true => println!("no endpoint is registered"),
                false => print!("{}", listed(&endpoints)),
            }
        }
        WebhooksCommand::Create(args) => create(args).await?,
        WebhooksCommand::Rotate { id, overlap, api } => {
            let rotated = api.client()?.rotate_webhook_secret(&id, &overlap).await.map_err(explained)?;
            println!("{id} has another secret. The one before signs too for {overlap}.");
            tell_secret(&rotated);
        }
        WebhooksCommand::Delete(args) => {
            args.api.client()?.delete_webhook_endpoint(&args.id).await.map_err(explained)?;
            println!("{} is deleted", args.id);
        }
        WebhooksCommand::Ping(args) => {
            let delivery = args.api.client()?.ping_webhook_endpoint(&args.id).await.map_err(explained)?;
            println!("{delivery} will be sent");
        }
        WebhooksCommand::Enable(args) => {
            let endpoint = args.api.client()?.enable_webhook_endpoint(&args.id).await.map_err(explained)?;
            println!("{} is {}: what has waited is sent now", endpoint.id, endpoint.status);
        }
        WebhooksCommand::Deliveries(args) => deliveries(args).await?,
        WebhooksCommand::Resend(args) => {
            args.api.client()?.resend_webhook_delivery(&args.id).await.map_err(explained)?;
            println!("{} will be sent once more", args.id);
        }
        WebhooksCommand::Recover { id, since, api } => {
            api.client()?.recover_webhook_endpoint(&id, &since).await.map_err(explained)?;
            println!("what was given up since {since} will be sent once more");
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let new = NewWebhookEndpoint {
        url: args.receiver,
        events: (!args.event.is_empty()).then_some(args.event),
        description: args.description,
        kind: args.ed25519.then(|| "ed25519".to_owned()),
        rate: args.rate,
    };
    let created = args.api.client()?.create_webhook_endpoint(&new).await.map_err(explained)?;
    println!("{} hears of {}", created.id, created.events.join(", "));
    tell_secret(&created);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
fn tell_secret(endpoint: &WebhookEndpoint) {
    println!("secret: {} (it is not shown again)", endpoint.secret.as_deref().unwrap_or_default());
    if let Some(key) = &endpoint.public_key {
        println!("public key: {key}");
    }
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
async fn deliveries(args: DeliveriesArgs) -> anyhow::Result<()> {
    let client = args.api.client()?;
    let choice =
        DeliveryChoice { endpoint: args.endpoint, job: args.job, status: args.status, limit: Some(args.limit) };
    if args.json {
        println!("{:#}", client.webhook_deliveries_document(&choice).await.map_err(explained)?);
        return Ok(());
    }
    let found = client.webhook_deliveries(&choice).await.map_err(explained)?;
    match found.is_empty() {
        true => println!("no delivery is there"),
        false => print!("{}", log(&found)),
    }
    Ok(())
}

fn listed(endpoints: &[WebhookEndpoint]) -> String {
    let row = |endpoint: &WebhookEndpoint| {
        let status = match &endpoint.disabled_reason {
            Some(reason) => format!("{} ({reason})", endpoint.status),
            None => endpoint.status.clone(),
        };
        let description = endpoint.description.replace(char::is_control, " ");
        [endpoint.id.clone(), status, endpoint.events.join(","), endpoint.url.clone(), description]
    };
    table(["ENDPOINT", "STATUS", "EVENTS", "URL", "DESCRIPTION"], endpoints.iter().map(row).collect())
}

fn log(deliveries: &[WebhookDelivery]) -> String {
    let row = |delivery: &WebhookDelivery| {
        [
            delivery.id.clone(),
            delivery.status.clone(),
            delivery.attempts.to_string(),
            delivery.kind.clone(),
            delivery.job.clone().unwrap_or_default(),
            delivery.due_at.clone().unwrap_or_default(),
        ]
    };
    table(["DELIVERY", "STATUS", "ATTEMPTS", "TYPE", "JOB", "NEXT"], deliveries.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_line_that_says_why_it_is_disabled() {
        let endpoint = WebhookEndpoint {
            id: "e-1".to_owned(),
            url: "https://example.com".to_owned(),
            description: "two\nlines".to_owned(),
            events: vec!["job.*".to_owned()],
            rate: None,
            status: "disabled".to_owned(),
            disabled_reason: Some("gone".to_owned()),
            public_key: None,
            secret: None,
        };
        let text = listed(&[endpoint]);
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line.trim_end(), "e-1       disabled (gone)  job.*   https://example.com  two lines");
    }
}
