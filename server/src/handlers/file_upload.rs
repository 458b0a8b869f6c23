//! A file on its way in: the form is read as it comes and written down as it is read, so that no
//! more than a block of it is in memory.

use axum::body::BodyDataStream;
use futures::StreamExt;

use super::{UnknownParams, prepare};
use crate::files::{Files, FilesError, Upload};
use crate::multipart::{Multipart, MultipartError, PartHead, Piece};
use crate::openai::{ApiError, FileFields, FileTerms, check_filename, file_field_twice};
use crate::state::AppState;

/// Bytes of a field that is no file.
const MAX_FIELD: usize = 1024;

/// A form, so far.
pub(super) struct FileForm<'a> {
    state: &'a AppState,
    files: &'a Files,
    /// What the file will be called.
    id: &'a str,
    fields: FileFields,
    file: Option<(String, Upload)>,
    part: Part,
}

/// What the bytes that come belong to.
enum Part {
    /// Nothing, before the first part and between two of them.
    None,
    File,
    Field {
        name: String,
        value: Vec<u8>,
    },
}

/// All that a form says.
pub(super) struct ReadForm {
    pub(super) terms: FileTerms,
    pub(super) filename: String,
    pub(super) upload: Upload,
}

impl<'a> FileForm<'a> {
    pub(super) fn new(state: &'a AppState, files: &'a Files, id: &'a str) -> Self {
        Self {
            state,
            files,
            id,
            fields: FileFields::default(),
            file: None,
            part: Part::None,
        }
    }

    /// Reads the form to its end.
    pub(super) async fn read(
        mut self,
        mut multipart: Multipart,
        body: &mut BodyDataStream,
    ) -> Result<ReadForm, ApiError> {
        while let Some(frame) = body.next().await {
            let frame = frame.map_err(|error| prepare::unread(&error))?;
            multipart.push(&frame);
            while let Some(piece) = multipart.next()? {
                self.take(piece).await?;
            }
        }
        multipart.finish()?;
        let terms = self.fields.finish()?;
        let (filename, upload) = self.file.ok_or_else(|| ApiError::missing("file"))?;
        Ok(ReadForm {
            terms,
            filename,
            upload,
        })
    }

    async fn take(&mut self, piece: Piece) -> Result<(), ApiError> {
        match piece {
            Piece::Begin(head) => self.begin(head).await,
            Piece::Data(data) => match &mut self.part {
                Part::File => match &mut self.file {
                    Some((_, upload)) => Ok(upload.append(&data).await?),
                    None => Ok(()),
                },
                Part::Field { name, value } if value.len() + data.len() > MAX_FIELD => {
                    let message = format!("Invalid '{name}': expected at most {MAX_FIELD} bytes.");
                    Err(ApiError::invalid(name, "string_above_max_length", message))
                }
                Part::Field { value, .. } => {
                    value.extend_from_slice(&data);
                    Ok(())
                }
                Part::None => Ok(()),
            },
            Piece::End => self.end(),
        }
    }

    async fn begin(&mut self, PartHead { name, filename }: PartHead) -> Result<(), ApiError> {
        self.part = match (name.as_str(), filename) {
            ("file", Some(filename)) => {
                check_filename(&filename)?;
                if self.file.is_some() {
                    return Err(file_field_twice("file"));
                }
                self.file = Some((filename, self.files.begin(self.id).await?));
                Part::File
            }
            ("file", None) => {
                return Err(ApiError::wrong_type("file", "a file", "a string"));
            }
            (_, Some(_)) => return Err(ApiError::unknown_parameter(&name)),
            (_, None) => Part::Field {
                name,
                value: Vec::new(),
            },
        };
        Ok(())
    }

    fn end(&mut self) -> Result<(), ApiError> {
        let Part::Field { name, value } = std::mem::replace(&mut self.part, Part::None) else {
            return Ok(());
        };
        let value = String::from_utf8(value)
            .map_err(|_| ApiError::wrong_type(&name, "text in UTF-8", "other bytes"))?;
        match self.fields.set(&name, value) {
            Err(error)
                if error.code.as_deref() == Some("unknown_parameter")
                    && self.state.unknown_params == UnknownParams::Warn =>
            {
                tracing::warn!(param = name, "an unknown parameter is left out");
                Ok(())
            }
            set => set,
        }
    }
}

impl From<MultipartError> for ApiError {
    fn from(error: MultipartError) -> Self {
        Self::bad_request(format!("The form could not be read: {error}."))
    }
}

impl From<FilesError> for ApiError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::TooLarge { max_bytes } => Self::file_too_large(max_bytes),
            FilesError::Full { max_bytes } => Self::no_room_for_file(format!(
                "There is no room for this file: all files together may have {max_bytes} bytes. \
                 Delete some, or start the server with a larger --files-size."
            )),
            FilesError::Busy => Self::bodies_too_large(),
            FilesError::Disk(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                tracing::error!(%error, "a file could not be kept");
                Self::no_room_for_file("There is no room for this file on the disk of the server.")
            }
            FilesError::Disk(error) => {
                tracing::error!(%error, "a file could not be kept or read");
                Self::internal("The server could not read or write its files.")
            }
            FilesError::Store(error) => error.into(),
        }
    }
}
